"""The processes of one training: which one this is, what they agree on, and how they end together.

`accelerate launch --num_processes N` starts them. Every process holds the whole model and trains on batches
of its own; what they exchange is gradients (`step_sum.py`), and before each step whether one of them was
asked to stop. The first alone writes. Nothing is exchanged within a forward or backward pass, so that the
processes may be at pictures of different sizes.
"""

import contextlib
import datetime
import hashlib
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import distributed

from ..diffusioncleft_core.environment import pick_device
from ..diffusioncleft_core.errors import UserError
from .interruption import Interrupted, Interruption

_POLL_SECONDS = 0.1
_STORE_SECONDS = 10
_PREVIEW_SECONDS = 7200
"""How long the others wait while the first draws previews and saves; one that is gone is noticed at once."""
_TEXT_BYTES = 128
_DIFFERENT = (
    "the processes of this training do not see the same images, models and checkpoint; give all of them the "
    "same options, versions and a shared file system"
)

DRIFTED = (
    "the weights in the processes have drifted apart, as on GPUs of different kinds: what is saved is the "
    "first process's, and another number of processes would not repeat it"
)


class LostProcess(RuntimeError):
    """Another process of the training is gone."""

    def __init__(self, count: int) -> None:
        super().__init__(
            f"one of the {count} processes ended without a word, as when memory runs out; the same command "
            "goes on from the last checkpoint"
        )


class Processes:
    """This process among those of one training; by default it is the only one.

    Attributes:
        index: from 0; the first writes.
        count: over all machines.
    """

    def __init__(self, index: int = 0, count: int = 1) -> None:
        self.index, self.count = index, count
        self._local = int(os.environ.get("LOCAL_RANK", "0")) if count > 1 else 0
        self._control: Any = None
        self._agreed = False
        self._opened: Any = None

    @classmethod
    def of_environment(cls) -> "Processes":
        """As the launcher says in RANK and WORLD_SIZE."""
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))

    @property
    def first(self) -> bool:
        """Whether this process writes."""
        return self.index == 0

    def join(self, name: str) -> torch.device:
        """Meet the others, and return this process's device.

        Args:
            name: of the device, as in the recipe: `auto`, `cuda`, `cpu`, ...

        Raises:
            UserError: the device is not there, or can't be shared out.
        """
        from accelerate import Accelerator

        named = None if name == "auto" else pick_device(name)
        if self.count > 1:
            named = self._checked(named)
        accelerator = Accelerator(cpu=named is not None and named.type == "cpu", mixed_precision="no")
        alone = self.count == 1 and {"MASTER_PORT", "ACCELERATE_USE_CPU"} <= os.environ.keys()
        if alone or accelerator.num_processes != self.count:
            # accelerate launch --cpu starts one process, unless it is given MPI's file of hosts.
            raise UserError(
                "not as many processes were started as were asked for; start them with accelerate launch "
                "--multi_gpu --num_processes N, on the processor too, where --device cpu is added at the end"
            )
        if self.count == 1:
            return named or torch.device(accelerator.device)
        # Of its own, so that asking whether to stop does not wait for the GPU.
        self._control = distributed.new_group(
            backend="gloo", timeout=datetime.timedelta(seconds=_PREVIEW_SECONDS)
        )
        self._store().set(f"process {self.index}", f"{socket.gethostname()} {os.getpid()}")
        return named or torch.device(accelerator.device)

    def _checked(self, named: torch.device | None) -> torch.device | None:
        """The device of several processes: None, a CUDA device each, or the processor."""
        if named is not None and (":" in str(named) or named.type == "mps"):
            raise UserError(
                f"{self.count} processes can't share the device {named}; leave out --device, and choose GPUs "
                "with CUDA_VISIBLE_DEVICES"
            )
        if named.type == "cpu" if named else not torch.cuda.is_available():
            return torch.device("cpu")
        here = int(os.environ.get("LOCAL_WORLD_SIZE", self.count))
        if here > (there := torch.cuda.device_count()):
            raise UserError(
                f"{here} processes need as many GPUs, and there are {there}; give --num_processes {there}"
            )
        return None

    def batches(self, step: int, of_a_step: int) -> range:
        """The numbers of this process's batches of `step`, counted from 1, in the one order of the data."""
        return range((step - 1) * of_a_step + self.index, step * of_a_step, self.count)

    @contextlib.contextmanager
    def first_before_others(self, interruption: Interruption) -> Iterator[None]:
        """The block in the first process, and when that is through it, in the others.

        They wait as long as it takes, and stop waiting when they are asked to stop.
        """
        if self.count == 1:
            yield
            return
        store = self._store()
        while not self.first and not store.check(["first is through"]):
            interruption.raise_if_requested()
            self.raise_if_one_is_gone()
            time.sleep(_POLL_SECONDS)
        yield
        if self.first:
            store.set("first is through", "1")

    def agree(self, reason: str | None) -> None:
        """Raise Interrupted in all processes, at the same place, if one of them has a reason to stop."""
        if self.count == 1:
            if reason:
                raise Interrupted(reason)
            return
        for text in self._texts((reason or "").encode("ascii", "replace")):
            if text:
                self._agreed = True
                raise Interrupted(text.decode("ascii"))

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A block that Interrupted in one process, as while it draws previews, ends in all."""
        try:
            yield
            if self.count > 1:
                self.agree(None)
        except Interrupted as interrupted:
            if self.count > 1 and not self._agreed:
                with contextlib.suppress(Interrupted):
                    self.agree(str(interrupted))
            raise

    def same(self, *values: Any) -> bool:
        """Whether all processes have the same values: tensors bit for bit, the rest by `repr`."""
        if self.count == 1:
            return True
        digest = hashlib.sha256()
        for value in values:
            is_tensor = isinstance(value, torch.Tensor)
            digest.update(
                value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
                if is_tensor
                else repr(value).encode()
            )
        return len(set(self._texts(digest.hexdigest().encode()))) == 1

    def check_same(self, *values: Any) -> None:
        """Raise UserError in all processes if one of them has other values."""
        if not self.same(*values):
            raise UserError(_DIFFERENT)

    def wait(self) -> None:
        """Wait for all others."""
        if self.count > 1:
            self._texts(b"")

    def speaks_for_all(self, code: int) -> tuple[bool, int]:
        """Whether this process is the first to end, so that it says why; and the exit status of all."""
        if self.count == 1:
            return True, code
        try:
            store = self._store()
            if store.add("endings", 1) == 1:
                store.set("status", str(code))
                return True, code
            return False, int(store.get("status"))
        except (RuntimeError, ValueError):  # the launcher is gone, or no launcher started them
            return self._local == 0, code

    def raise_if_one_is_gone(self) -> None:
        """Raise LostProcess if another process has ended.

        The launcher then asks those that are left to stop, which looks like a user's wish. One that ended
        without a word is noticed on this machine alone.
        """
        import psutil

        if self.one_has_ended():
            raise LostProcess(self.count)
        if self._control is None:
            return
        store = self._store()
        for index in range(self.count):
            if store.check([f"process {index}"]):
                host, _, pid = store.get(f"process {index}").decode().rpartition(" ")
                with contextlib.suppress(psutil.Error):
                    if host == socket.gethostname() and (
                        not psutil.pid_exists(int(pid))
                        or psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE
                    ):
                        raise LostProcess(self.count)

    def one_has_ended(self) -> bool:
        """Whether another process has said that it ends."""
        try:
            return self._control is not None and bool(self._store().check(["status"]))
        except RuntimeError:  # the process that held the store is gone
            return True

    def leave(self) -> None:
        """After a training that all of them have ended."""
        if self._control is not None:
            distributed.destroy_process_group()

    def _store(self) -> Any:
        """The launcher's key-value store; it needs no answer from the other processes."""
        if self._opened is None:
            store = distributed.TCPStore(  # type: ignore[attr-defined]
                os.environ["MASTER_ADDR"],
                int(os.environ["MASTER_PORT"]),
                is_master=False,
                timeout=datetime.timedelta(seconds=_STORE_SECONDS),
            )
            self._opened = distributed.PrefixStore("diffusioncleft", store)  # type: ignore[attr-defined]
        return self._opened

    def _texts(self, text: bytes) -> list[bytes]:
        """Every process's `text`, in their order."""
        mine = torch.zeros(_TEXT_BYTES, dtype=torch.uint8)
        cut = text[:_TEXT_BYTES]
        mine[: len(cut)] = torch.frombuffer(bytearray(cut or b"\0"), dtype=torch.uint8)[: len(cut)]
        found = [torch.empty_like(mine) for _ in range(self.count)]
        with self.reached():
            distributed.all_gather(found, mine, group=self._control)
        return [bytes(entry.tolist()).rstrip(b"\0") for entry in found]

    @contextlib.contextmanager
    def reached(self) -> Iterator[None]:
        """Raise LostProcess where the others are not reached."""
        try:
            yield
        except RuntimeError as error:
            raise LostProcess(self.count) from error
