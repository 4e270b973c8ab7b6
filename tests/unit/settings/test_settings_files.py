"""Configuration: an operator's mistake is named with file, line, key and cure."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from noded import config_text, settings, tables
from noded.config import Config, HandlerConfig, ImagesConfig, NetworkConfig
from noded.errors import InvalidArgument, NotFound
from noded.options import AtLeast, parse_options


def load(directory: Path, text: str, **drop_ins: str) -> Config:
    path = directory / "noded.toml"
    path.write_text(text)
    for name, content in drop_ins.items():
        (directory / "conf.d").mkdir(exist_ok=True)
        (directory / "conf.d" / f"{name}.toml").write_text(content)
    return settings.load(path)


def refusal(directory: Path, text: str, **drop_ins: str) -> str:
    with pytest.raises(InvalidArgument) as caught:
        load(directory, text, **drop_ins)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{directory}/")


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "") == Config()


def test_a_missing_file_is_an_error_unless_it_is_the_default_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "missing.toml"
    with pytest.raises(NotFound, match=re.escape(f"{missing}: cannot read the configuration: No such file")):
        settings.load(missing)
    monkeypatch.setattr(tables, "DEFAULT_PATH", missing)
    assert settings.load() == settings.load(missing) == Config()


def test_every_kind_of_value_is_read(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
        root = "/srv/noded"
        log_level = "debug"
        drain_seconds = 5
        default_capabilities = ["CAP_KILL"]
        default_sysctls = { "net.ipv4.ping_group_range" = "0 0" }
        [network]
        bin_dirs = [
          "/a",
          "/b",
        ]
        [images]
        auth_file = "/auth.json"
        keep_blobs = false
        unpack_workers = 3
        """,
    )
    assert config.root == Path("/srv/noded")
    assert config.drain_seconds == 5.0
    assert isinstance(config.drain_seconds, float)
    assert config.default_capabilities == ("CAP_KILL",)
    assert config.default_sysctls == {"net.ipv4.ping_group_range": "0 0"}
    assert config.network.bin_dirs == (Path("/a"), Path("/b"))
    assert (config.images.auth_file, config.images.keep_blobs) == (Path("/auth.json"), False)


def test_drop_ins_merge_tables_and_replace_arrays_in_the_order_of_names(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        'log_level = "error"\n[network]\nbin_dirs = ["/a"]\ndefault_network = "x"\n',
        **{
            "20-late": '[network]\nbin_dirs = ["/c"]\n',
            "10-early": 'log_level = "debug"\n[network]\nbin_dirs = ["/b"]\n',
        },
    )
    assert config.log_level == "debug"
    assert config.network.bin_dirs == (Path("/c"),)
    assert config.network.default_network == "x"


def test_only_visible_toml_files_are_drop_ins(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    for name in ("x.toml.bak", ".hidden.toml", "README"):
        (tmp_path / "conf.d" / name).write_text("not toml at all")
    assert load(tmp_path, "") == Config()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\nlog_levl = 'x'", "noded.toml:2: unknown key log_levl; did you mean log_level?"),
        (
            "[network]\n\nconf_dri = '/x'",
            "noded.toml:3: unknown key network.conf_dri; did you mean conf_dir?",
        ),
        ("[netwrok]\nconf_dir = '/x'", "noded.toml:1: unknown key netwrok; did you mean network?"),
        (
            "images.zzz = 1",
            "noded.toml:1: unknown key images.zzz; valid are additional_stores, auth_dir, auth_file, ",
        ),
        ("root = 5", "noded.toml:1: root: expected a path, got an integer 5"),
        ("root = 'x'", "noded.toml:1: root: 'x' is not an absolute path"),
        ("images.keep_blobs = 1", "noded.toml:1: images.keep_blobs: expected a boolean, got an integer 1"),
        ("drain_seconds = true", "noded.toml:1: drain_seconds: expected a number, got a boolean True"),
        ("drain_seconds = -1", "noded.toml:1: drain_seconds: -1 is less than 0"),
        ("drain_seconds = nan", "noded.toml:1: drain_seconds: nan is not a finite number"),
        (
            "[images]\nmax_parallel_downloads = 0",
            "noded.toml:2: images.max_parallel_downloads: 0 is less than 1",
        ),
        (
            "images.unpack_workers = 1.5",
            "noded.toml:1: images.unpack_workers: expected an integer, got a number 1.5",
        ),
        (
            "log_level = 'wanring'",
            "noded.toml:1: log_level: 'wanring' is none of debug, info, warning, error; did you mean war",
        ),
        ("network.bin_dirs = '/x'", "noded.toml:1: network.bin_dirs: expected an array, got a string '/x'"),
        (
            "[network]\nbin_dirs = [\n '/a',\n 5]",
            "noded.toml:2: network.bin_dirs: expected a path, got an integer 5",
        ),
        ("default_sysctls.a = 1", "noded.toml:1: default_sysctls.a: expected a string, got an integer 1"),
        ("network = 3", "noded.toml:1: network: expected a table, got an integer 3"),
        ("runtimes = 3", "noded.toml:1: runtimes: expected a table of handlers"),
        ("[runtimes]\nx = 3", "noded.toml:2: runtimes.x: expected a table"),
        ("\n[runtimes.x]\n", "noded.toml:2: runtimes.x.type is missing: set the runtime type of a plugin"),
        ("[runtimes.A_b]\ntype = 'runc'", "noded.toml:1: runtimes.A_b: no RuntimeClass can name this"),
        (
            "[runtimes.runc]\ncreate_timeout_seconds = 'x'",
            "noded.toml:2: runtimes.runc.create_timeout_seconds: expected a number",
        ),
        (
            "default_runtime = 'kata'",
            "noded.toml:1: default_runtime: no handler 'kata' in [runtimes]; there are runc, crun",
        ),
        (
            "monitor_cgroup = 'x'",
            "noded.toml:1: monitor_cgroup: 'x' is neither pod nor an absolute cgroup path",
        ),
        ("root = '/a'\nroot = '/b'", "noded.toml:2: not TOML: Cannot overwrite a value"),
        ("x = [1,\n2", "noded.toml:2: not TOML: "),
    ],
)
def test_a_mistake_is_named_with_its_line_and_cure(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(tmp_path, text).startswith(message)


def test_a_mistake_in_a_drop_in_names_that_file(tmp_path: Path) -> None:
    text = '[network]\nconf_dir = "/x"\n'
    assert refusal(tmp_path, text, a="\n[network]\nconf_dir = 3\n").startswith(
        "conf.d/a.toml:3: network.conf_dir: expected a path"
    )


def test_a_file_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    (tmp_path / "noded.toml").write_bytes(b"root = '\xff'")
    with pytest.raises(InvalidArgument, match=r"noded\.toml: not UTF-8"):
        settings.load(tmp_path / "noded.toml")


def test_handlers_are_added_to_the_known_ones_and_changed_by_key(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
        [runtimes.crun]
        allowed_annotations = ["run.oci.*"]
        path = "/opt/crun"
        [runtimes.gvisor]
        type = "runsc"
        platform = "ptrace"
        default_annotations = { "a" = "b" }
        """,
    )
    runc, crun, gvisor = config.runtimes
    assert runc == HandlerConfig("runc", "runc")
    assert (crun.type, crun.allowed_annotations, crun.options) == (
        "crun",
        ("run.oci.*",),
        {"path": "/opt/crun"},
    )
    assert (gvisor.name, gvisor.type, gvisor.options) == ("gvisor", "runsc", {"platform": "ptrace"})
    assert gvisor.default_annotations == {"a": "b"}


class Flavour(StrEnum):
    SWEET = "sweet"
    SOUR = "sour"


@dataclass(frozen=True)
class Options:
    """What a plugin might declare."""

    path: str = "crun"
    size: Annotated[int, AtLeast(1)] = 1
    flavour: Flavour = Flavour.SWEET
    mode: Literal["a", "b"] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    names: frozenset[str] = frozenset()


def test_options_of_a_plugin_are_refused_as_exactly_as_noded_s_own(tmp_path: Path) -> None:
    text = "[runtimes.crun]\npath = '/opt/crun'\nsize = 0\nflavor = 'sour'\n"
    options = load(tmp_path, text).runtimes[1].options
    with pytest.raises(
        InvalidArgument, match=r"noded\.toml:4: unknown key runtimes\.crun\.flavor; did you mean flavour\?"
    ):
        parse_options(Options, options, "runtimes.crun")
    without = {key: value for key, value in options.items() if key != "flavor"}
    with pytest.raises(InvalidArgument, match=r"^runtimes\.crun\.size: 0 is less than 1$"):
        parse_options(Options, without, "runtimes.crun")


def test_options_take_enums_literals_sets_and_free_tables() -> None:
    table = {"flavour": "sour", "mode": "b", "extra": {"x": [1, {"y": 2}]}, "names": ["n"]}
    options = parse_options(Options, table, "x")
    assert options.flavour is Flavour.SOUR
    assert options == Options(
        flavour=Flavour.SOUR, mode="b", extra={"x": [1, {"y": 2}]}, names=frozenset({"n"})
    )
    with pytest.raises(InvalidArgument, match=r"x\.flavour: 'salty' is none of sweet, sour"):
        parse_options(Options, {"flavour": "salty"}, "x")


def test_a_missing_required_option_is_named() -> None:
    with pytest.raises(InvalidArgument, match=r"runtimes\.x\.type is missing"):
        parse_options(HandlerConfig, {"name": "x"}, "runtimes.x")


@pytest.mark.parametrize("cls", [Config, NetworkConfig, ImagesConfig, HandlerConfig])
def test_every_key_is_documented(cls: type) -> None:
    documentation = config_text.documentation(cls)
    for key in dataclasses.fields(cls):
        assert len(documentation[key.name]) >= 3, (
            f"{cls.__name__}.{key.name} has no comment in noded/config.py"
        )


def test_the_default_file_shows_every_key_and_changes_nothing(tmp_path: Path) -> None:
    text = config_text.render_default()
    assert load(tmp_path, text) == Config()
    uncommented = re.sub(r"^#(?=[a-z_]+ = )", "", text, flags=re.MULTILINE)
    assert load(tmp_path, uncommented) == Config()
    shown = tomllib.loads(uncommented)
    for name, section in (("network", NetworkConfig), ("images", ImagesConfig)):
        assert shown[name].keys() == {key.name for key in dataclasses.fields(section)}
    assert shown.keys() == {key.name for key in dataclasses.fields(Config)}


words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
absolute = words.map(lambda text: Path("/" + text))
keys = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)
values = st.recursive(
    st.booleans() | st.integers(-(2**60), 2**60) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
handlers = st.builds(
    HandlerConfig,
    name=keys,
    type=words,
    options=st.dictionaries(words.filter(lambda key: key not in settings._HANDLER_KEYS), values, max_size=3),
    default_annotations=st.dictionaries(words, words, max_size=2),
    allowed_annotations=st.lists(words, max_size=2).map(tuple),
    create_timeout_seconds=st.floats(0, 1e9),
)
configs = st.builds(
    Config,
    root=absolute,
    log_level=st.sampled_from(["debug", "info", "warning", "error"]),
    listen_group=words,
    drain_seconds=st.floats(0, 1e300),
    default_sysctls=st.dictionaries(words, words, max_size=2),
    network=st.builds(
        NetworkConfig, bin_dirs=st.lists(absolute, max_size=2).map(tuple), default_network=words
    ),
    images=st.builds(ImagesConfig, auth_file=st.none() | absolute, keep_blobs=st.booleans()),
    runtimes=st.lists(handlers, max_size=3, unique_by=lambda handler: handler.name).map(
        lambda more: (*Config().runtimes, *(h for h in more if h.name not in ("runc", "crun")))
    ),
)


@hypothesis_settings(deadline=None)
@given(configs)
def test_any_configuration_survives_its_own_rendering(config: Config) -> None:
    again = settings.interpret(tables.parse(config_text.render(config), "x"))
    assert again == config
    assert settings.changed_keys(config, again) == set()


def test_changed_keys_are_named_and_some_are_reloadable() -> None:
    changed = dataclasses.replace(Config(), log_level="debug", images=ImagesConfig(pinned=("a",)), conmon="x")
    assert settings.changed_keys(Config(), changed) == {"log_level", "images.pinned", "conmon"}
    assert settings.changed_keys(Config(), changed) - settings.RELOADABLE == {"conmon", "images.pinned"}


@hypothesis_settings(deadline=None)
@given(st.lists(st.tuples(keys, values), max_size=5, unique_by=lambda pair: pair[0]), st.integers(0, 3))
def test_the_line_of_every_key_is_found(pairs: list[tuple[str, Any]], blank: int) -> None:
    lines = ["[table.inner]"]
    expected = {}
    for key, value in pairs:
        lines += ["# comment = 1"] * blank
        expected[("table", "inner", key)] = len(lines) + 1
        lines += f"{key} = [\n  {config_text._value(value)},\n]".split("\n")
    found = tables.key_lines("\n".join(lines))
    assert {path: found[path] for path in expected} == expected
    assert found[("table",)] == found[("table", "inner")] == 1


def test_multi_line_strings_do_not_hide_the_lines_after_them() -> None:
    text = 'a = """\nb = 1\n[c]\n"""\nd = 2\r\n[e.f]\n"g h".i = \'\'\'\nx\'\'\'\n[[j]]\nk = 1\n'
    lines = tables.key_lines(text)
    assert lines == {
        ("a",): 1, ("d",): 5, ("e",): 6, ("e", "f"): 6, ("e", "f", "g h"): 7, ("e", "f", "g h", "i"): 7,
        ("j",): 9, ("j", "k"): 10,
    }  # fmt: skip
