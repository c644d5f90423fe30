/* A Vulkan layer for tests: it stands between a program and any driver, and one call fails as a driver's would.
 *
 *   VULKAN_FAULT="memory 12"    the 12th vkAllocateMemory finds no memory
 *   VULKAN_FAULT="buffer 30"    the 30th vkCreateBuffer does (several buffers share one vkAllocateMemory)
 *   VULKAN_FAULT="kernel 3"     the 3rd vkCreateComputePipelines fails
 *   VULKAN_FAULT="submit 40"    from the 40th vkQueueSubmit on, the device is lost
 *
 * Without the variable it counts: at the end of the process the calls of each kind are printed.
 * The declarations are those of Vulkan's specification and of the loader's vk_layer.h, as far as they are used, so that no package with
 * headers is needed. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int32_t VkResult;
typedef void *Handle; /* VkInstance, VkPhysicalDevice, VkDevice, VkQueue: pointers to the loader's table */
typedef void (*Function)(void);
typedef Function (*GetProcAddr)(Handle, const char *);

enum { SUCCESS = 0, OUT_OF_DEVICE_MEMORY = -2, INITIALIZATION_FAILED = -3, DEVICE_LOST = -4, UNKNOWN = -13 };
enum { LOADER_INSTANCE_CREATE_INFO = 47, LOADER_DEVICE_CREATE_INFO = 48, LAYER_LINK_INFO = 0 };

/* Links of the chain of layers; the one for instances and the one for devices have the same shape. */
typedef struct Link {
    struct Link *next;
    GetProcAddr next_instance_proc; /* vkGetInstanceProcAddr of what is below */
    GetProcAddr next_other_proc;    /* devices: vkGetDeviceProcAddr */
} Link;

typedef struct CreateInfo {
    int32_t type;
    const struct CreateInfo *next;
    int32_t function; /* from here on only where type is one of the loader's */
    Link *link;
} CreateInfo;

/* A program has one instance and one device here. */
static GetProcAddr instance_below, device_below;
static Function allocate_below, buffer_below, pipelines_below, submit_below, submit2_below;

static int memory_calls, buffer_calls, kernel_calls, submit_calls;

static void print_counts(void) {
    fprintf(stderr, "vulkan calls: memory %d, buffer %d, kernel %d, submit %d\n", memory_calls, buffer_calls, kernel_calls, submit_calls);
}

/* Whether the call with this number of this kind is the one that fails. */
static int is_chosen(const char *kind, int number, int and_after) {
    const char *fault = getenv("VULKAN_FAULT");
    size_t length = strlen(kind);
    if (!fault || strncmp(fault, kind, length) != 0) return 0;
    int chosen = atoi(fault + length);
    return number == chosen || (and_after && number > chosen);
}

static VkResult allocate_memory(Handle device, const void *info, const void *allocator, void *memory) {
    int number = __atomic_add_fetch(&memory_calls, 1, __ATOMIC_SEQ_CST);
    if (is_chosen("memory", number, 0)) return OUT_OF_DEVICE_MEMORY;
    return ((VkResult (*)(Handle, const void *, const void *, void *))allocate_below)(device, info, allocator, memory);
}

static VkResult create_buffer(Handle device, const void *info, const void *allocator, void *buffer) {
    int number = __atomic_add_fetch(&buffer_calls, 1, __ATOMIC_SEQ_CST);
    if (is_chosen("buffer", number, 0)) return OUT_OF_DEVICE_MEMORY;
    return ((VkResult (*)(Handle, const void *, const void *, void *))buffer_below)(device, info, allocator, buffer);
}

static VkResult create_pipelines(Handle device, uint64_t cache, uint32_t count, const void *infos, const void *allocator, uint64_t *made) {
    int number = __atomic_add_fetch(&kernel_calls, 1, __ATOMIC_SEQ_CST);
    if (is_chosen("kernel", number, 0)) {
        memset(made, 0, count * sizeof *made);
        return UNKNOWN;
    }
    typedef VkResult (*Create)(Handle, uint64_t, uint32_t, const void *, const void *, uint64_t *);
    return ((Create)pipelines_below)(device, cache, count, infos, allocator, made);
}

static VkResult submit(Handle queue, uint32_t count, const void *batches, uint64_t fence) {
    int number = __atomic_add_fetch(&submit_calls, 1, __ATOMIC_SEQ_CST);
    if (is_chosen("submit", number, 1)) return DEVICE_LOST;
    return ((VkResult (*)(Handle, uint32_t, const void *, uint64_t))submit_below)(queue, count, batches, fence);
}

static VkResult submit2(Handle queue, uint32_t count, const void *batches, uint64_t fence) {
    int number = __atomic_add_fetch(&submit_calls, 1, __ATOMIC_SEQ_CST);
    if (is_chosen("submit", number, 1)) return DEVICE_LOST;
    return ((VkResult (*)(Handle, uint32_t, const void *, uint64_t))submit2_below)(queue, count, batches, fence);
}

static Function device_proc(Handle device, const char *name) {
    if (!strcmp(name, "vkGetDeviceProcAddr")) return (Function)device_proc;
    Function below = device_below(device, name);
    struct { const char *name; Function own, *below; } replaced[] = {
        {"vkAllocateMemory", (Function)allocate_memory, &allocate_below},
        {"vkCreateBuffer", (Function)create_buffer, &buffer_below},
        {"vkCreateComputePipelines", (Function)create_pipelines, &pipelines_below},
        {"vkQueueSubmit", (Function)submit, &submit_below},
        {"vkQueueSubmit2", (Function)submit2, &submit2_below},
        {"vkQueueSubmit2KHR", (Function)submit2, &submit2_below},
    };
    for (size_t i = 0; below && i < sizeof replaced / sizeof *replaced; i++)
        if (!strcmp(name, replaced[i].name)) {
            *replaced[i].below = below;
            return replaced[i].own;
        }
    return below;
}

/* The layer's own link in the chain, which is moved on to the next layer's. */
static Link *take_link(const CreateInfo *info, int32_t type) {
    for (CreateInfo *at = (CreateInfo *)info->next; at; at = (CreateInfo *)at->next)
        if (at->type == type && at->function == LAYER_LINK_INFO) {
            Link *link = at->link;
            at->link = link->next;
            return link;
        }
    return NULL;
}

static VkResult create_instance(const CreateInfo *info, const void *allocator, Handle *instance) {
    Link *link = take_link(info, LOADER_INSTANCE_CREATE_INFO);
    if (!link) return INITIALIZATION_FAILED;
    instance_below = link->next_instance_proc;
    Function create = instance_below(NULL, "vkCreateInstance");
    return ((VkResult (*)(const CreateInfo *, const void *, Handle *))create)(info, allocator, instance);
}

static VkResult create_device(Handle physical, const CreateInfo *info, const void *allocator, Handle *device);

static Function instance_proc(Handle instance, const char *name) {
    if (!strcmp(name, "vkGetInstanceProcAddr")) return (Function)instance_proc;
    if (!strcmp(name, "vkCreateInstance")) return (Function)create_instance;
    if (!strcmp(name, "vkCreateDevice")) return (Function)create_device;
    if (!strcmp(name, "vkGetDeviceProcAddr")) return (Function)device_proc;
    return instance_below(instance, name);
}

static VkResult create_device(Handle physical, const CreateInfo *info, const void *allocator, Handle *device) {
    Link *link = take_link(info, LOADER_DEVICE_CREATE_INFO);
    if (!link) return INITIALIZATION_FAILED;
    device_below = link->next_other_proc;
    Function create = link->next_instance_proc(NULL, "vkCreateDevice");
    VkResult result = ((VkResult (*)(Handle, const CreateInfo *, const void *, Handle *))create)(physical, info, allocator, device);
    if (result == SUCCESS && !getenv("VULKAN_FAULT")) atexit(print_counts);
    return result;
}

typedef struct { int32_t type; void *next; uint32_t version; GetProcAddr instance, device, physical; } Negotiate;

__attribute__((visibility("default"))) VkResult vkNegotiateLoaderLayerInterfaceVersion(Negotiate *with) {
    with->version = 2;
    with->instance = instance_proc;
    with->device = device_proc;
    with->physical = NULL;
    return SUCCESS;
}
