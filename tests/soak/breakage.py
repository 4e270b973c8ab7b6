"""Steps that break the node and mend it, change its images, or make calls that no client should."""

from __future__ import annotations

from tests.crash.programs import DO_AND_DIE, DO_AND_FAIL, FAIL, HANG, NONSENSE
from tests.soak import hostile
from tests.soak.node import Code, Node, Refused
from tests.soak.steps import Step

SECOND_IMAGE = "soak.example/second:1"


class Breakage:
    """CNI, the disk, images, hostile calls."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def break_cni(self, step: Step) -> None:
        commands = (("ADD",), ("DEL",), ("ADD", "DEL"))[step.variant % 3]
        code = (FAIL, DO_AND_FAIL, DO_AND_DIE, NONSENSE, HANG)[step.variant // 3 % 5]
        self.heal_cni(step)
        if "DEL" in commands:  # else a create that was given up might have to stay
            self.node.until(self.node.undone, "every cancelled create is undone")
        for command in commands:
            # A DEL whose answer is not an error is a DEL that succeeded.
            self.node.bridge.tell(command, FAIL if command == "DEL" and code in (NONSENSE,) else code)
        self.node.model.cni_broken = "both" if len(commands) == 2 else commands[0]

    def heal_cni(self, step: Step) -> None:
        self.node.bridge.heal()
        self.node.model.cni_broken = ""

    def fill_disk(self, step: Step) -> None:
        self.node.disk.fill()
        self.node.model.disk_full = True

    def free_disk(self, step: Step) -> None:
        self.node.disk.free()
        self.node.model.disk_full = False

    def load_image(self, step: Step) -> None:
        admin = self.node.world.cri.admin_pb
        request = admin.LoadImageRequest(path=str(self.node.second))
        code, message, _, _ = self.node.call(self.node.world.cri.admin.LoadImage, request)
        full = self.node.model.disk_full
        self.node.expect(step, code, message, {Code.OK, Code.RESOURCE_EXHAUSTED} if full else {Code.OK})
        self.node.model.image_loaded |= code is Code.OK

    def remove_image(self, step: Step) -> None:
        pb = self.node.world.cri.pb
        request = pb.RemoveImageRequest(image=pb.ImageSpec(image=SECOND_IMAGE))
        code, message, _, _ = self.node.call(self.node.world.cri.image.RemoveImage, request)
        self.node.expect(step, code, message, {Code.OK})
        self.node.model.image_loaded = False

    def hostile(self, step: Step) -> None:
        what, code, message = hostile.call(self.node.world.cri, step.variant)
        self.node.codes[code.name] += 1
        if code not in hostile.REFUSALS:
            raise Refused(f"{what}: {code.name} ({message})")
