/*
 * The part of QEMU's plugin interface that count.c uses, for QEMU 7.2 (plugin interface version 1).
 *
 * Distributions ship the emulator without the header, so the declarations stand here. The functions are defined in the
 * emulator itself and found when it loads the plugin. What they do: "TCG Plugins" in QEMU's documentation for developers.
 */
#ifndef BRIDGEQUANT_QEMU_PLUGIN_H
#define BRIDGEQUANT_QEMU_PLUGIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PLUGIN_INTERFACE_VERSION 1

typedef uint64_t qemu_plugin_id_t;

struct qemu_plugin_tb; /* a translated block: guest instructions that run one after the other */

struct qemu_plugin_host {
    const char *target_name; /* "aarch64" */
    struct {
        int oldest;
        int current;
    } version;
    bool system_emulation;
    struct {
        int smp_vcpus;
        int max_vcpus;
    } system;
};

enum qemu_plugin_inline_op { QEMU_PLUGIN_ADD_U64 };

typedef void (*qemu_plugin_vcpu_cb)(qemu_plugin_id_t id, unsigned int vcpu);
typedef void (*qemu_plugin_block_cb)(qemu_plugin_id_t id, struct qemu_plugin_tb *block);
typedef void (*qemu_plugin_syscall_cb)(qemu_plugin_id_t id, unsigned int vcpu, int64_t number, uint64_t a1, uint64_t a2,
                                       uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8);

void qemu_plugin_register_vcpu_init_cb(qemu_plugin_id_t id, qemu_plugin_vcpu_cb call);
void qemu_plugin_register_vcpu_exit_cb(qemu_plugin_id_t id, qemu_plugin_vcpu_cb call);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, qemu_plugin_block_cb call);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t id, qemu_plugin_syscall_cb call);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *block, enum qemu_plugin_inline_op op, void *counter,
                                              uint64_t amount);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);

#endif
