// A ggml backend that calls itself a GPU and has the processor compute: so that what is told of a GPU's memory can be
// tested where there is none. It is 8 GiB large, and each time that it is asked 1 MiB more is in use.
#include "ggml-backend-impl.h"

#include <stdatomic.h>

#define MIB ((size_t) 1 << 20)
#define TOTAL (8192 * MIB)

static ggml_backend_dev_t processor(void) {
    return ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
}

static const char * device_name(ggml_backend_dev_t dev) {
    (void) dev;
    return "Pretend0";
}

static const char * device_description(ggml_backend_dev_t dev) {
    (void) dev;
    return "Pretended GPU";
}

static void device_memory(ggml_backend_dev_t dev, size_t * free, size_t * total) {
    static atomic_size_t asked;
    (void) dev;
    *free = TOTAL - 1024 * MIB - atomic_fetch_add(&asked, 1) * MIB;
    *total = TOTAL;
}

static enum ggml_backend_dev_type device_type(ggml_backend_dev_t dev) {
    (void) dev;
    return GGML_BACKEND_DEVICE_TYPE_GPU;
}

static void device_props(ggml_backend_dev_t dev, struct ggml_backend_dev_props * props) {
    props->name = device_name(dev);
    props->description = device_description(dev);
    props->type = device_type(dev);
    props->device_id = NULL;
    device_memory(dev, &props->memory_free, &props->memory_total);
    props->caps = (struct ggml_backend_dev_caps) { 0 };
}

static ggml_backend_t device_init(ggml_backend_dev_t dev, const char * params) {
    (void) dev;
    return ggml_backend_dev_init(processor(), params);
}

static ggml_backend_buffer_type_t device_buffer_type(ggml_backend_dev_t dev) {
    (void) dev;
    return ggml_backend_dev_buffer_type(processor());
}

static bool device_supports_op(ggml_backend_dev_t dev, const struct ggml_tensor * op) {
    (void) dev;
    return ggml_backend_dev_supports_op(processor(), op);
}

static bool device_supports_buft(ggml_backend_dev_t dev, ggml_backend_buffer_type_t buft) {
    (void) dev;
    return ggml_backend_dev_supports_buft(processor(), buft);
}

static const char * reg_name(ggml_backend_reg_t reg) {
    (void) reg;
    return "Pretend";
}

static size_t reg_count(ggml_backend_reg_t reg) {
    (void) reg;
    return 1;
}

static ggml_backend_dev_t reg_device(ggml_backend_reg_t reg, size_t index) {
    static struct ggml_backend_device device;
    (void) index;
    device = (struct ggml_backend_device) {
        .iface = {
            .get_name = device_name,
            .get_description = device_description,
            .get_memory = device_memory,
            .get_type = device_type,
            .get_props = device_props,
            .init_backend = device_init,
            .get_buffer_type = device_buffer_type,
            .supports_op = device_supports_op,
            .supports_buft = device_supports_buft,
        },
        .reg = reg,
    };
    return &device;
}

static ggml_backend_reg_t registration(void) {
    static struct ggml_backend_reg reg = {
        .api_version = GGML_BACKEND_API_VERSION,
        .iface = { .get_name = reg_name, .get_device_count = reg_count, .get_device = reg_device },
    };
    return &reg;
}

GGML_BACKEND_DL_IMPL(registration)
