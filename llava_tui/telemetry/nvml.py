"""NVIDIA GPUs through pynvml: every field is a value or the reason why there is none.

A driver may be absent, too old for a function, forbid a reading, not support it on this GPU or under MIG, or lose the
GPU while it is being watched. None of this ends the sampler: what could not be read is ``None`` in the sample, and the
reason stands in a :class:`~llava_tui.events.GpuAbsent`, written again only when the reasons change.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llava_tui.events import GpuAbsent, GpuDevice, GpuProcess, GpuSample

try:
    import pynvml
except ImportError:  # a broken installation still gets host telemetry
    pynvml = None

SECOND = 1_000_000_000
RETRY_NS = 5 * SECOND
"""How long a reading that failed for a passing cause is left alone."""
PROCESSES_NS = SECOND // 2
"""Listing processes is the dearest of the ordinary calls; twice a second is enough to follow memory."""
PCIE_NS = SECOND
"""The driver measures PCIe throughput by counting for about 20 ms, in which the call does not return."""
SETTINGS_NS = SECOND
NEVER = 1 << 62

NOT_SUPPORTED = "not supported by this GPU"
NO_PERMISSION = "no permission"
DRIVER_TOO_OLD = "driver too old for this reading"
UNDER_MIG = "not available under MIG"
NO_PERMISSION_UNDER_MIG = "no permission (MIG is on: the whole GPU is an administrator's to read)"
UNLISTED = "the worker is not listed: it is not on this GPU"
UNLISTED_IN_CONTAINER = "the worker is not listed: it is not on this GPU, or the driver lists the host's PIDs"
MEMORY_UNTOLD = "the driver does not tell this process's memory"

_INITIAL_PID_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO: Linux gives the first PID namespace this inode

Telemetry = GpuDevice | GpuAbsent | GpuSample


class GpuLostError(Exception):
    """This GPU will not answer again in this session; the message is the reason."""


def explain(error: Exception, mig: bool = False) -> tuple[str, bool]:
    """Why a reading failed, in words for a screen, and whether it is worth asking again.

    Raises :class:`GpuLostError` where the GPU itself is gone.
    """
    code = getattr(error, "value", None)
    if pynvml is None or not isinstance(error, pynvml.NVMLError):
        # AttributeError: a module named pynvml without this function, hence older than the driver's interface.
        if isinstance(error, AttributeError):
            return "this nvidia-ml-py does not know this reading", False
        return f"unexpected {type(error).__name__}: {error}", True
    if code == pynvml.NVML_ERROR_GPU_IS_LOST:
        raise GpuLostError("GPU lost: it stopped answering (the kernel log has the cause)")
    if code == pynvml.NVML_ERROR_RESET_REQUIRED:
        raise GpuLostError("GPU lost: it needs a reset")
    if code == pynvml.NVML_ERROR_NOT_SUPPORTED:
        return (UNDER_MIG if mig else NOT_SUPPORTED), False
    if code == pynvml.NVML_ERROR_NO_PERMISSION:
        return (NO_PERMISSION_UNDER_MIG if mig else NO_PERMISSION), True
    if code in (pynvml.NVML_ERROR_FUNCTION_NOT_FOUND, pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH):
        return DRIVER_TOO_OLD, False
    if code == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
        return "no NVIDIA driver: libnvidia-ml.so.1 was not found", False
    if code == pynvml.NVML_ERROR_DRIVER_NOT_LOADED:
        return "no NVIDIA driver: it is not loaded", True
    if code == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
        return "the NVIDIA driver and its library differ in version: reload the driver or reboot", True
    return f"driver error: {error}", True


class Reading:
    """One question to the driver and its last answer: values for ``fields``, or the reason why there are none."""

    __slots__ = ("ask", "due", "every", "fields", "reason", "values")

    def __init__(self, fields: tuple[str, ...], ask: Callable[[], tuple[Any, ...]], every: int = 0) -> None:
        self.fields = fields
        self.ask = ask
        self.every = every
        """Nanoseconds between questions; the last answer stands in between. 0: at every sample."""
        self.due = 0
        self.reason = ""
        self.values: tuple[Any, ...] = (None,) * len(fields)

    def read(self, t: int, mig: bool = False) -> None:
        """Asks if it is time to. What the GPU or the driver will never tell is not asked twice.

        Raises :class:`GpuLostError` only.
        """
        if t < self.due:
            return
        try:
            self.values = self.ask()
        except GpuLostError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a driver does must become a reason
            self.values = (None,) * len(self.fields)
            self.reason, again = explain(error, mig)
            self.due = t + RETRY_NS if again else NEVER
        else:
            self.reason = ""
            self.due = t + self.every


def first_known(*asks: Callable[[], Any]) -> Callable[[], Any]:
    """Tries the forms of one question in order, past those that driver or pynvml do not have, and keeps to the first
    that they have."""
    forms = list(asks)

    def ask() -> Any:
        while len(forms) > 1:
            try:
                return forms[0]()
            except AttributeError:
                pass
            except pynvml.NVMLError as error:
                if explain(error)[0] != DRIVER_TOO_OLD:
                    raise
            del forms[0]
        return forms[0]()

    return ask


def pids_match() -> bool:
    """Whether the PIDs that the driver lists are ours: certain in the machine's first PID namespace only."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino == _INITIAL_PID_NAMESPACE
    except OSError:
        return False


def _link(handle: Any) -> str:
    """Link generation and width, "gen 4 ×16". An idle link drops its generation, hence the highest; a width below the
    highest stays, hence both."""
    generation = pynvml.nvmlDeviceGetMaxPcieLinkGeneration(handle)
    width = pynvml.nvmlDeviceGetCurrPcieLinkWidth(handle)
    highest = pynvml.nvmlDeviceGetMaxPcieLinkWidth(handle)
    return f"gen {generation} ×{width}" + (f" of ×{highest}" if width < highest else "")


def _processes(handle: Any) -> Callable[[], tuple[list[GpuProcess]]]:
    listing = first_known(
        lambda: pynvml.nvmlDeviceGetComputeRunningProcesses_v3(handle),
        lambda: pynvml.nvmlDeviceGetComputeRunningProcesses_v2(handle),
    )

    def ask() -> tuple[list[GpuProcess]]:
        found = [GpuProcess(pid=p.pid, memory=p.usedGpuMemory) for p in listing()]
        return (sorted(found, key=lambda p: p.pid),)

    return ask


class Gpu:
    """One GPU: its device facts once, then samples."""

    def __init__(self, index: int, worker_pid: int, driver: str, cuda: str) -> None:
        self.index = index
        self.worker_pid = worker_pid
        self.lost = False
        self._driver, self._cuda = driver, cuda
        self._mig = False
        self._unlisted = UNLISTED if pids_match() else UNLISTED_IN_CONTAINER
        self._readings: list[Reading] = []
        self._slow: list[Reading] = []
        self._fixed: dict[str, str] = {}
        self._told_reasons: dict[str, str] = {}
        self._told_processes: list[GpuProcess] | None = None

    def start(self, t: int) -> list[Telemetry]:
        """Finds the GPU and tells what does not change about it. ``t``: now, ns."""
        facts: dict[str, Any] = {"driver": self._driver, "cuda": self._cuda}
        try:
            try:
                handle = pynvml.nvmlDeviceGetHandleByIndex(self.index)
            except Exception as error:
                raise GpuLostError(explain(error)[0]) from error
            for reading in self._facts(handle):
                reading.read(t)
                facts.update((k, v) for k, v in zip(reading.fields, reading.values, strict=True) if v is not None)
                if reading.reason:
                    self._fixed.update(dict.fromkeys(reading.fields, reading.reason))
            self._mig = bool(facts.get("mig"))
            self._readings, self._slow = self._questions(handle)
            if self._mig:  # a driver that answers 0 here would be believed
                self._fixed["utilization"] = self._fixed["memory_utilization"] = UNDER_MIG
                self._readings = [r for r in self._readings if "utilization" not in r.fields]
            for reading in self._slow:
                reading.read(t, self._mig)
        except GpuLostError as error:
            return [GpuDevice(t=t, gpu=self.index, **facts), *self._lose(t, str(error))]
        return [GpuDevice(t=t, gpu=self.index, **facts)]

    def sample(self, t: int) -> list[Telemetry]:
        """One sample at ``t`` (ns), after the reasons where they changed; nothing more once the GPU was lost."""
        if self.lost:
            return []
        fields: dict[str, Any] = {}
        reasons = dict(self._fixed)
        try:
            for reading in self._readings:
                reading.read(t, self._mig)
        except GpuLostError as error:
            return self._lose(t, str(error))
        for reading in self._readings + self._slow:
            if reading.reason:
                reasons.update(dict.fromkeys(reading.fields, reading.reason))
            fields.update(zip(reading.fields, reading.values, strict=True))
        self._footprint(fields, reasons)
        events: list[Telemetry] = []
        if reasons != self._told_reasons:
            self._told_reasons = reasons
            events.append(GpuAbsent(t=t, gpu=self.index, reasons=reasons))
        events.append(GpuSample(t=t, gpu=self.index, **fields))
        return events

    def read_slow(self, t: int) -> bool:
        """Asks at most one of the questions that block, if one is due; whether it did."""
        if self.lost:
            return False
        for reading in self._slow:
            if t >= reading.due:
                try:
                    reading.read(t, self._mig)
                except GpuLostError:
                    pass  # the next sample meets it, and tells
                return True
        return False

    def _footprint(self, fields: dict[str, Any], reasons: dict[str, str]) -> None:
        """The worker's memory by its PID; and the list of processes, left out where it is as last told."""
        found = fields["processes"]
        if found is None:
            reasons["worker_memory"] = reasons.get("processes", "")
        else:
            mine = next((p for p in found if p.pid == self.worker_pid), None)
            if mine is None:
                reasons["worker_memory"] = self._unlisted
            elif mine.memory is None:
                reasons["worker_memory"] = MEMORY_UNTOLD
            else:
                fields["worker_memory"] = mine.memory
        if found == self._told_processes:
            fields["processes"] = None
        self._told_processes = found

    def _lose(self, t: int, reason: str) -> list[Telemetry]:
        self.lost = True
        return [GpuAbsent(t=t, gpu=self.index, reasons={"*": reason})]

    def _facts(self, handle: Any) -> list[Reading]:
        reserved = first_known(
            lambda: pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2).reserved,
            lambda: 0,  # The first form of memory counts it as used.
        )
        return [
            Reading(("name",), lambda: (pynvml.nvmlDeviceGetName(handle),)),
            Reading(("uuid",), lambda: (pynvml.nvmlDeviceGetUUID(handle),)),
            Reading(("memory_total",), lambda: (pynvml.nvmlDeviceGetMemoryInfo(handle).total,)),
            Reading(("memory_reserved",), lambda: (reserved(),)),
            Reading(("pcie",), lambda: (_link(handle),)),
            Reading(("mig",), lambda: (pynvml.nvmlDeviceGetMigMode(handle)[0] == 1,)),
            Reading(("ecc",), lambda: (pynvml.nvmlDeviceGetEccMode(handle)[0] == 1,)),
        ]

    def _questions(self, handle: Any) -> tuple[list[Reading], list[Reading]]:
        """The readings of a sample, and those that block and are read between samples."""
        nv = pynvml
        # The second form of memory leaves out what the driver reserves for itself, as nvidia-smi does.
        memory = first_known(
            lambda: nv.nvmlDeviceGetMemoryInfo(handle, version=nv.nvmlMemory_v2),
            lambda: nv.nvmlDeviceGetMemoryInfo(handle),
        )
        throttle = first_known(
            lambda: nv.nvmlDeviceGetCurrentClocksEventReasons(handle),
            lambda: nv.nvmlDeviceGetCurrentClocksThrottleReasons(handle),
        )
        temperature = first_known(
            lambda: nv.nvmlDeviceGetTemperature(handle, nv.NVML_TEMPERATURE_GPU),
            lambda: nv.nvmlDeviceGetTemperatureV(handle, nv.NVML_TEMPERATURE_GPU),
        )

        def utilization() -> tuple[float, float]:
            rates = nv.nvmlDeviceGetUtilizationRates(handle)
            return float(rates.gpu), float(rates.memory)

        def clock(kind: int) -> Callable[[], tuple[int]]:
            return lambda: (nv.nvmlDeviceGetClockInfo(handle, kind),)

        def pcie(counter: int) -> Callable[[], tuple[int]]:
            return lambda: (nv.nvmlDeviceGetPcieThroughput(handle, counter),)

        readings = [
            Reading(("memory_used",), lambda: (memory().used,)),
            Reading(("utilization", "memory_utilization"), utilization),
            Reading(("power_mw",), lambda: (nv.nvmlDeviceGetPowerUsage(handle),)),
            Reading(("power_limit_mw",), lambda: (nv.nvmlDeviceGetEnforcedPowerLimit(handle),), SETTINGS_NS),
            Reading(("energy_mj",), lambda: (nv.nvmlDeviceGetTotalEnergyConsumption(handle),)),
            Reading(("temperature_c",), lambda: (temperature(),)),
            Reading(("sm_clock_mhz",), clock(nv.NVML_CLOCK_SM)),
            Reading(("memory_clock_mhz",), clock(nv.NVML_CLOCK_MEM)),
            Reading(("throttle",), lambda: (throttle(),)),
            Reading(("processes",), _processes(handle), PROCESSES_NS),
        ]
        slow = [
            Reading(("pcie_tx_kbs",), pcie(nv.NVML_PCIE_UTIL_TX_BYTES), PCIE_NS),
            Reading(("pcie_rx_kbs",), pcie(nv.NVML_PCIE_UTIL_RX_BYTES), PCIE_NS),
        ]
        return readings, slow


class Nvml:
    """All GPUs of this machine. :meth:`start` once, :meth:`sample` at every deadline, :meth:`read_slow` in between."""

    def __init__(self, worker_pid: int) -> None:
        self.worker_pid = worker_pid
        self.gpus: list[Gpu] = []
        self._turn = 0

    def start(self) -> list[Telemetry]:
        """Loads the driver's library and finds the GPUs: a device each; without any, one absence of GPU −1.

        May take seconds where the driver has to wake the GPUs first. Never raises.
        """
        t = time.monotonic_ns()
        try:
            if pynvml is None:
                return [GpuAbsent(t=t, gpu=-1, reasons={"*": "the package nvidia-ml-py is not installed"})]
            pynvml.nvmlInit()
            count = pynvml.nvmlDeviceGetCount()
        except Exception as error:  # noqa: BLE001 - see Reading.read
            try:
                reason = explain(error)[0]
            except GpuLostError as lost:
                reason = str(lost)
            return [GpuAbsent(t=t, gpu=-1, reasons={"*": reason})]
        if not count:
            return [GpuAbsent(t=t, gpu=-1, reasons={"*": "the NVIDIA driver sees no GPU"})]
        driver, cuda = self._versions()
        self.gpus = [Gpu(index, self.worker_pid, driver, cuda) for index in range(count)]
        return [event for gpu in self.gpus for event in gpu.start(time.monotonic_ns())]

    def sample(self) -> list[Telemetry]:
        """A sample of each GPU that is still there, each with the time it was begun. Never raises."""
        return [event for gpu in self.gpus for event in gpu.sample(time.monotonic_ns())]

    def read_slow(self) -> None:
        """Asks one due question that blocks (about 20 ms), of the GPUs in turn. Never raises."""
        for step in range(len(self.gpus)):
            gpu = self.gpus[(self._turn + step) % len(self.gpus)]
            if gpu.read_slow(time.monotonic_ns()):
                self._turn = (self._turn + step + 1) % len(self.gpus)
                return

    @staticmethod
    def _versions() -> tuple[str, str]:
        """Driver and newest CUDA that it serves ("550.54.14", "12.4"); empty where the driver does not tell."""

        def cuda() -> tuple[str]:
            version = pynvml.nvmlSystemGetCudaDriverVersion_v2()
            return (f"{version // 1000}.{version % 1000 // 10}",)

        answers = [Reading(("driver",), lambda: (pynvml.nvmlSystemGetDriverVersion(),)), Reading(("cuda",), cuda)]
        for answer in answers:
            try:
                answer.read(0)
            except GpuLostError:
                pass
        driver, version = (answer.values[0] or "" for answer in answers)
        return driver, version
