/* A stand-in for NVIDIA's libnvidia-ml.so.1, so that the tests drive the real pynvml without a GPU.

   Two GPUs, the second a smaller one. STANDIN_NVML selects what goes wrong: normal, no-driver, gpu-lost (the second,
   after 5 samples), no-permission (processes), mig (on the first), container-pids (processes of other PIDs), no-gpus,
   broken (error codes and strings nobody documented), hang (a call of the second never returns).
   Compiled with -DOLD_DRIVER it lacks functions that drivers before 510 lack. */

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    OK = 0, NOT_SUPPORTED = 3, NO_PERMISSION = 4, INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15
};

typedef unsigned long long u64;
typedef struct { int index, samples; } Device;
typedef struct { u64 total, free, used; } Memory;
typedef struct { unsigned version; u64 total, reserved, free, used; } Memory2;
typedef struct { unsigned gpu, memory; } Utilization;
typedef struct { unsigned pid; u64 memory; unsigned gpu_instance, compute_instance; } Process;

static Device devices[2] = {{0, 0}, {1, 0}};

static int scenario(const char *name) {
    const char *selected = getenv("STANDIN_NVML");
    return selected && !strcmp(selected, name);
}

static int answer(Device *d) {
    if (scenario("gpu-lost") && d->index == 1 && d->samples > 5) return GPU_IS_LOST;
    return OK;
}

/* Every ordinary question: fails with the GPU, else gives the value for the first or the second. */
#define GIVE(d, out, first, second) \
    do { int r = answer(d); if (!r) *(out) = (d)->index ? (second) : (first); return r; } while (0)

int nvmlInitWithFlags(unsigned flags) { (void)flags; return scenario("no-driver") ? DRIVER_NOT_LOADED : OK; }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) { (void)code; return "an error of the stand-in"; }

int nvmlSystemGetDriverVersion(char *out, unsigned size) { strncpy(out, "550.54.14", size); return OK; }
int nvmlSystemGetCudaDriverVersion_v2(int *out) { *out = 12040; return OK; }
int nvmlDeviceGetCount_v2(unsigned *out) { *out = scenario("no-gpus") ? 0 : 2; return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **out) { *out = &devices[index]; return OK; }

int nvmlDeviceGetName(Device *d, char *out, unsigned size) {
    if (scenario("broken") && d->index == 0) { strncpy(out, "\xff\xfe", size); return OK; }
    strncpy(out, d->index ? "Stand-in S" : "Stand-in L", size);
    return answer(d);
}
int nvmlDeviceGetUUID(Device *d, char *out, unsigned size) {
    strncpy(out, d->index ? "GPU-00000000-0000-0000-0000-000000000002" : "GPU-00000000-0000-0000-0000-000000000001", size);
    return answer(d);
}

static u64 total(Device *d) { return (d->index ? 24ull : 80ull) << 30; }

int nvmlDeviceGetMemoryInfo(Device *d, Memory *out) {
    out->total = total(d);
    out->used = 3ull << 30;
    out->free = out->total - out->used;
    d->samples++;
    return answer(d);
}
int nvmlDeviceGetUtilizationRates(Device *d, Utilization *out) {
    out->gpu = d->index ? 7 : 93;
    out->memory = d->index ? 1 : 41;
    return answer(d);
}
int nvmlDeviceGetPowerUsage(Device *d, unsigned *out) {
    if (scenario("broken")) return 4242;
    if (scenario("hang") && d->index == 1) for (;;) pause();
    GIVE(d, out, 412345, 61000);
}
int nvmlDeviceGetEnforcedPowerLimit(Device *d, unsigned *out) { GIVE(d, out, 700000, 450000); }
int nvmlDeviceGetTemperature(Device *d, unsigned sensor, unsigned *out) {
    if (sensor != 0) return NOT_SUPPORTED;
    GIVE(d, out, 64, 31);
}
int nvmlDeviceGetClockInfo(Device *d, unsigned kind, unsigned *out) {
    if (kind == 1) GIVE(d, out, 1980, 2520);
    if (kind == 2) GIVE(d, out, 2619, 10501);
    return NOT_SUPPORTED;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(Device *d, u64 *out) { GIVE(d, out, 0x4, 0x1); }
int nvmlDeviceGetMaxPcieLinkGeneration(Device *d, unsigned *out) { GIVE(d, out, 5, 4); }
int nvmlDeviceGetMaxPcieLinkWidth(Device *d, unsigned *out) { GIVE(d, out, 16, 16); }
int nvmlDeviceGetCurrPcieLinkWidth(Device *d, unsigned *out) { GIVE(d, out, 16, 8); }
int nvmlDeviceGetPcieThroughput(Device *d, unsigned counter, unsigned *out) {
    struct timespec window = {0, 20 * 1000 * 1000}; /* as long as the driver counts */
    nanosleep(&window, NULL);
    GIVE(d, out, counter ? 2200 : 1100, counter ? 44 : 33);
}
int nvmlDeviceGetMigMode(Device *d, unsigned *current, unsigned *pending) {
    if (d->index == 1) return NOT_SUPPORTED;
    *current = *pending = scenario("mig");
    return answer(d);
}
int nvmlDeviceGetEccMode(Device *d, unsigned *current, unsigned *pending) {
    *pending = 0;
    GIVE(d, current, 1, 0);
}

/* The tests start the sampler themselves, so its parent plays the worker. */
static int processes(Device *d, unsigned *count, Process *out) {
    unsigned n = d->index ? 0 : 2;
    if (scenario("no-permission") || (scenario("mig") && d->index == 0)) return NO_PERMISSION;
    if (answer(d)) return answer(d);
    if (*count < n) { *count = n; return INSUFFICIENT_SIZE; }
    *count = n;
    if (n) {
        out[0] = (Process){scenario("container-pids") ? 4194301 : (unsigned)getppid(), 13ull << 30, ~0u, ~0u};
        out[1] = (Process){4194300, ~0ull, ~0u, ~0u}; /* not told: as of another user */
    }
    return OK;
}
int nvmlDeviceGetComputeRunningProcesses_v2(Device *d, unsigned *count, Process *out) { return processes(d, count, out); }

#ifndef OLD_DRIVER
int nvmlDeviceGetComputeRunningProcesses_v3(Device *d, unsigned *count, Process *out) { return processes(d, count, out); }
int nvmlDeviceGetMemoryInfo_v2(Device *d, Memory2 *out) {
    out->total = total(d);
    out->reserved = 1ull << 30;
    out->used = 2ull << 30;
    out->free = out->total - out->reserved - out->used;
    d->samples++;
    return answer(d);
}
int nvmlDeviceGetCurrentClocksEventReasons(Device *d, u64 *out) { GIVE(d, out, 0x4, 0x1); }
int nvmlDeviceGetTotalEnergyConsumption(Device *d, u64 *out) {
    if (d->index == 1) return NOT_SUPPORTED;
    *out = 5000000ull + (u64)d->samples * 40000ull;
    return answer(d);
}
#endif
