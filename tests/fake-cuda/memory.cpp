// The fake driver's memory: see driver.cpp. What is allocated in the order of a stream comes from a pool, which keeps
// what was freed as its threshold says; copies to the host arrive when they are waited for.
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <map>
#include <vector>

#include "device.h"

using namespace device;

namespace {

const size_t MARGIN = 256;
const unsigned char BEHIND = 0xa5;

struct Allocation {
    size_t bytes;
    bool of_pool;
};
std::map<CUdeviceptr, Allocation> &allocations = *new std::map<CUdeviceptr, Allocation>;

size_t total() { return strtoull(variable("FAKE_CUDA_MEMORY", "8589934592"), nullptr, 10); }

// Bytes that cuMemAlloc gave.
size_t plain;

// The pool. What was freed since the host last waited is still the device's to use, and cannot be given back.
struct Pool {
    size_t used, used_high, reserved, reserved_high, unsettled;
    cuuint64_t threshold;

    void give_back(size_t keep) {
        const size_t least = used + unsettled;
        if (reserved > keep) reserved = least > keep ? least : keep;
    }
} pool;

// A copy to the host whose bytes have not arrived.
struct Copy {
    Moment moment;
    char *to;
    std::vector<char> bytes;
};
std::vector<Copy> &copies = *new std::vector<Copy>;
unsigned long moments;

// Page-locked memory, and copies from there that may be under way: what is sent is read until the host has waited for it.
std::map<const char *, size_t> &locked = *new std::map<const char *, size_t>;
struct Sending {
    Moment moment;
    const char *from;
    std::vector<char> bytes;
};
std::vector<Sending> &sending = *new std::vector<Sending>;

bool is_locked(const char *at, size_t bytes) {
    auto next = locked.upper_bound(at);
    if (next == locked.begin()) return false;
    --next;
    return at + bytes <= next->first + next->second;
}

bool is_over(const Moment &then, const Moment &moment) {
    return then.number <= moment.number && (!moment.stream || then.stream == moment.stream);
}

// Whether the bytes of the host are as the copy left them at its start: there, and of no value.
bool is_waiting(const Copy &copy) {
    std::vector<char> found(copy.bytes.size());
    iovec into{found.data(), found.size()}, from{copy.to, found.size()};
    const ssize_t read = process_vm_readv(getpid(), &into, 1, &from, 1, 0);
    if (read < 0 && errno != EFAULT) memcpy(found.data(), copy.to, found.size());
    else if (size_t(read) != found.size()) return false;
    for (char byte : found)
        if (byte != char(0xff)) return false;
    return true;
}

CUresult allocate(CUdeviceptr *at, size_t bytes, bool of_pool) {
    if (!bytes) return wrong(CUDA_ERROR_INVALID_VALUE, "an allocation of no bytes");
    counts.allocations++;
    const size_t in_pool = of_pool ? pool.reserved - pool.used : 0;
    const size_t more = bytes > in_pool ? bytes - in_pool : 0;
    const char *fails = variable("FAKE_CUDA_FAIL_ALLOCATION", "");
    const bool fits = more <= total() - plain - pool.reserved && (!*fails || strtoull(fails, nullptr, 10) != counts.allocations);
    void *found = fits ? aligned_alloc(256, (bytes + MARGIN + 255) / 256 * 256) : nullptr;
    if (!found) return counts.refused++, CUDA_ERROR_OUT_OF_MEMORY;
    memset(found, 0xff, bytes);
    memset(static_cast<char *>(found) + bytes, BEHIND, MARGIN);
    *at = CUdeviceptr(found);
    allocations[*at] = {bytes, of_pool};
    if (of_pool) {
        pool.used += bytes, pool.reserved += more;
        pool.used_high = std::max(pool.used_high, pool.used);
        pool.reserved_high = std::max(pool.reserved_high, pool.reserved);
        // What has settled is used again before the rest.
        pool.unsettled = std::min(pool.unsettled, pool.reserved - pool.used);
    } else {
        plain += bytes;
    }
    counts.peak = std::max(counts.peak, allocated());
    return CUDA_SUCCESS;
}

CUresult release(CUdeviceptr at, bool of_pool) {
    auto found = allocations.find(at);
    if (found == allocations.end()) return wrong(CUDA_ERROR_INVALID_VALUE, "memory is freed that is not allocated");
    const Allocation freed = found->second;
    if (freed.of_pool != of_pool) return wrong(CUDA_ERROR_INVALID_VALUE, "memory is freed in another way than it was allocated");
    allocations.erase(found);
    if (of_pool) pool.used -= freed.bytes, pool.unsettled += freed.bytes;
    else plain -= freed.bytes;
    CUresult result = CUDA_SUCCESS;
    for (size_t i = 0; i < MARGIN && !result; i++)
        if (reinterpret_cast<unsigned char *>(at)[freed.bytes + i] != BEHIND)
            result = wrong(CUDA_ERROR_ILLEGAL_ADDRESS, "byte %zu behind an allocation of %zu was written", i, freed.bytes);
    free(reinterpret_cast<void *>(at));
    return result;
}

CUresult copy(CUdeviceptr to, CUdeviceptr from, size_t bytes, bool from_device, bool to_device) {
    if ((to_device && !lies_inside(to, bytes)) || (from_device && !lies_inside(from, bytes)))
        return wrong(CUDA_ERROR_INVALID_VALUE, "a copy of %zu bytes that lie in no allocation", bytes);
    memmove(reinterpret_cast<void *>(to), reinterpret_cast<void *>(from), bytes);
    return CUDA_SUCCESS;
}

}  // namespace

size_t device::allocated() { return plain + pool.used; }
size_t device::kept() { return pool.reserved - pool.used; }
size_t device::pending() { return copies.size(); }

bool device::lies_inside(CUdeviceptr at, size_t bytes) {
    auto next = allocations.upper_bound(at);
    if (next == allocations.begin()) return false;
    --next;
    return at + bytes <= next->first + next->second.bytes;
}

Moment device::now(CUstream stream) { return {stream, ++moments}; }

// All streams wait for each other here, as those do that are not told otherwise: with null, all work has been done.
void device::settle(const Moment &moment) {
    std::vector<Copy> later;
    for (Copy &copy : copies) {
        if (!is_over(copy.moment, moment))
            later.push_back(std::move(copy));
        else if (is_waiting(copy))
            memcpy(copy.to, copy.bytes.data(), copy.bytes.size());
        else
            wrong(CUDA_ERROR_ILLEGAL_ADDRESS, "memory of the host was used before the copy of %zu bytes to it was waited for",
                  copy.bytes.size());
    }
    copies = std::move(later);
    std::vector<Sending> still;
    for (Sending &sent : sending) {
        if (!is_over(sent.moment, moment))
            still.push_back(std::move(sent));
        else if (memcmp(sent.from, sent.bytes.data(), sent.bytes.size()))
            wrong(CUDA_ERROR_ILLEGAL_ADDRESS, "%zu bytes of page-locked memory were changed before their copy was waited for",
                  sent.bytes.size());
    }
    sending = std::move(still);
    pool.unsettled = 0;
    pool.give_back(pool.threshold);
}

bool machine::is_allocated(const void *at) { return !at || lies_inside(CUdeviceptr(at), 1); }

extern "C" {

CUresult cuDeviceTotalMem(size_t *bytes, CUdevice) { return *bytes = total(), CUDA_SUCCESS; }
CUresult cuMemGetInfo(size_t *free, size_t *all) {
    IN_CONTEXT;
    *all = total();
    *free = total() - plain - pool.reserved;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *found, CUdevice) { return *found = CUmemoryPool(&pool), CUDA_SUCCESS; }
CUresult cuDeviceGetMemPool(CUmemoryPool *found, CUdevice) { return *found = CUmemoryPool(&pool), CUDA_SUCCESS; }
CUresult cuMemPoolSetAttribute(CUmemoryPool of, CUmemPool_attribute attribute, void *value) {
    Guard guard(lock);
    if (of != CUmemoryPool(&pool)) return wrong(CUDA_ERROR_INVALID_VALUE, "an attribute of no pool is set");
    const cuuint64_t number = *static_cast<cuuint64_t *>(value);
    switch (attribute) {
        case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
        case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
        case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES: return CUDA_SUCCESS;
        case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD: return pool.threshold = number, CUDA_SUCCESS;
        // These can be set back to what they are now, by zero.
        case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
            if (!number) return pool.reserved_high = pool.reserved, CUDA_SUCCESS;
            break;
        case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
            if (!number) return pool.used_high = pool.used, CUDA_SUCCESS;
            break;
        default: break;
    }
    return wrong(CUDA_ERROR_INVALID_VALUE, "attribute %d of a pool is set to %llu", int(attribute), (unsigned long long)number);
}
CUresult cuMemPoolGetAttribute(CUmemoryPool of, CUmemPool_attribute attribute, void *value) {
    Guard guard(lock);
    if (of != CUmemoryPool(&pool)) return wrong(CUDA_ERROR_INVALID_VALUE, "an attribute of no pool is asked for");
    auto number = [&](cuuint64_t found) { return *static_cast<cuuint64_t *>(value) = found, CUDA_SUCCESS; };
    switch (attribute) {
        case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
        case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
        case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES: return *static_cast<int *>(value) = 1, CUDA_SUCCESS;
        case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD: return number(pool.threshold);
        case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT: return number(pool.reserved);
        case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH: return number(pool.reserved_high);
        case CU_MEMPOOL_ATTR_USED_MEM_CURRENT: return number(pool.used);
        case CU_MEMPOOL_ATTR_USED_MEM_HIGH: return number(pool.used_high);
        default: return wrong(CUDA_ERROR_INVALID_VALUE, "attribute %d of a pool", int(attribute));
    }
}
CUresult cuMemPoolTrimTo(CUmemoryPool of, size_t keep) {
    Guard guard(lock);
    if (of != CUmemoryPool(&pool)) return wrong(CUDA_ERROR_INVALID_VALUE, "what is trimmed is no pool");
    counts.trims++;
    return pool.give_back(keep), CUDA_SUCCESS;
}

CUresult cuMemAlloc(CUdeviceptr *at, size_t bytes) {
    IN_CONTEXT;
    return allocate(at, bytes, false);
}
CUresult cuMemFree(CUdeviceptr at) {
    IN_CONTEXT;
    return release(at, false);
}
CUresult cuMemAllocAsync(CUdeviceptr *at, size_t bytes, CUstream) {
    IN_CONTEXT;
    return allocate(at, bytes, true);
}
CUresult cuMemFreeAsync(CUdeviceptr at, CUstream) {
    IN_CONTEXT;
    return release(at, true);
}

CUresult cuMemHostAlloc(void **at, size_t bytes, unsigned) {
    IN_CONTEXT;
    if (*variable("FAKE_CUDA_LOCKS_NO_MEMORY", "") || !(*at = malloc(bytes))) return CUDA_ERROR_OUT_OF_MEMORY;
    locked[static_cast<char *>(*at)] = bytes;
    return CUDA_SUCCESS;
}
CUresult cuMemFreeHost(void *at) {
    IN_CONTEXT;
    if (!locked.erase(static_cast<char *>(at))) return wrong(CUDA_ERROR_INVALID_VALUE, "memory is unlocked that was not locked");
    return free(at), CUDA_SUCCESS;
}

CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t bytes, CUstream stream) {
    IN_CONTEXT;
    counts.copies_to_device++;
    counts.bytes_to_device += bytes;
    const char *source = static_cast<const char *>(from);
    if (is_locked(source, bytes)) sending.push_back({now(stream), source, {source, source + bytes}});
    return copy(to, CUdeviceptr(from), bytes, false, true);
}
CUresult cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t bytes, CUstream stream) {
    IN_CONTEXT;
    counts.copies_to_host++;
    counts.bytes_to_host += bytes;
    if (!*variable("FAKE_CUDA_LAZY", "") || !bytes) return copy(CUdeviceptr(to), from, bytes, true, false);
    if (!lies_inside(from, bytes)) return wrong(CUDA_ERROR_INVALID_VALUE, "a copy of %zu bytes that lie in no allocation", bytes);
    const char *source = reinterpret_cast<char *>(from);
    copies.push_back({now(stream), static_cast<char *>(to), {source, source + bytes}});
    memset(to, 0xff, bytes);
    return CUDA_SUCCESS;
}
CUresult cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream) {
    IN_CONTEXT;
    counts.copies_on_device++;
    return copy(to, from, bytes, true, true);
}
CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes, CUstream) {
    IN_CONTEXT;
    counts.memsets++;
    if (!lies_inside(to, bytes)) return wrong(CUDA_ERROR_INVALID_VALUE, "%zu bytes are set that lie in no allocation", bytes);
    memset(reinterpret_cast<void *>(to), value, bytes);
    return CUDA_SUCCESS;
}

}  // extern "C"
