"""`images`."""

from __future__ import annotations

from noded.cli.grammar.parts import Commands, command, daemon_options, group, json_option, quiet_option


def declare(commands: Commands) -> None:
    """The image store."""
    actions = group(commands, "images", "list, pull, inspect, verify, remove, load and save images")
    listing = command(actions, "ls", "images of this node", "noded.cli.images:list_images", "noded images ls")
    quiet_option(listing)
    daemon_options(listing, json="images:Images")
    pull = command(
        actions,
        "pull",
        "pull an image from its registry",
        "noded.cli.images:pull",
        "noded images pull registry.example/app:1.2",
    )
    pull.add_argument("reference", metavar="REFERENCE", help="for example registry.example/app:1.2")
    pull.add_argument(
        "--creds",
        default="",
        metavar="USER[:PASSWORD]",
        help="credentials; a missing password is read from standard input",
    )
    daemon_options(pull, json="images:Pulled")
    remove = command(
        actions, "rm", "remove images", "noded.cli.images:remove", "noded images rm registry.example/app:1.2"
    )
    remove.add_argument("images", metavar="IMAGE", nargs="+", help="reference or id")
    daemon_options(remove, json="images:ImagesRemoved")
    inspect = command(
        actions,
        "inspect",
        "all details of an image, as JSON",
        "noded.cli.image_store:inspect",
        "noded images inspect registry.example/app:1.2",
    )
    inspect.add_argument("image", metavar="IMAGE", help="reference or id")
    daemon_options(inspect)
    json_option(inspect, "images:ImageInspected", always=True)
    verify = command(
        actions,
        "verify",
        "look for damage in the local store and repair it (status 1: some image stays damaged)",
        "noded.cli.image_store:verify",
        "noded images verify --deep",
    )
    verify.add_argument("images", metavar="IMAGE", nargs="*", help="reference or id (default: all images)")
    verify.add_argument(
        "--deep", action="store_true", help="read every blob and extract every layer anew, to compare"
    )
    daemon_options(verify, json="images:ImagesVerified")
    usage = command(
        actions, "df", "what images take on disk", "noded.cli.image_store:usage", "noded images df"
    )
    daemon_options(usage, json="images:DiskUsage")
    load = command(
        actions,
        "load",
        "load an OCI layout (directory or tar) or a docker archive",
        "noded.cli.images:load",
        "noded images load ./image.tar",
    )
    load.add_argument("path", metavar="PATH", help="file or directory, as the daemon sees it")
    daemon_options(load, json="images:ImagesLoaded")
    save = command(
        actions,
        "save",
        "save images into a tar file",
        "noded.cli.images:save",
        "noded images save -o app.tar registry.example/app:1.2",
    )
    save.add_argument("references", metavar="REFERENCE", nargs="+")
    save.add_argument("-o", "--output", metavar="PATH", required=True, help="file to write")
    save.add_argument(
        "--format",
        choices=("oci", "docker"),
        default="oci",
        help="oci: OCI layout, docker: docker archive (default: oci)",
    )
    daemon_options(save, json="images:ImagesSaved")
    export = command(
        actions,
        "export-store",
        "write images to a directory that other nodes use as an additional image store",
        "noded.cli.images:export_store",
        "noded images export-store /mnt/images registry.example/app:1.2",
    )
    export.add_argument("directory", metavar="DIR", help="directory, as the daemon sees it; images are added")
    export.add_argument("references", metavar="REFERENCE", nargs="*", help="images (default: all)")
    daemon_options(export, json="images:StoreExported")
