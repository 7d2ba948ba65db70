/*
 * A QEMU plugin that counts executed guest instructions, and writes the count down whenever the guest asks for it.
 *
 * The guest asks with a system call that no kernel has: syscall(MARK, region, edge). The kernel's answer (no such call)
 * is of no interest. Each one becomes a line of the file named with the argument out=FILE:
 *
 *     region edge instructions threads
 *
 * where instructions is the count since the start, up to and including the call itself, and threads says how many guest
 * threads live. All else is left to the reader of the file. The counter is added to once per translated block, without a
 * lock, so that it is exact for one running thread only; this is why threads is written.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "qemu_plugin.h"

#ifndef MARK
#error "define MARK, the number of the marking system call"
#endif

__attribute__((visibility("default"))) int qemu_plugin_version = PLUGIN_INTERFACE_VERSION;

static uint64_t instructions;
static int threads;
static FILE *out;

static void thread_starts(qemu_plugin_id_t id, unsigned int vcpu)
{
    (void)id, (void)vcpu;
    __atomic_add_fetch(&threads, 1, __ATOMIC_RELAXED);
}

static void thread_ends(qemu_plugin_id_t id, unsigned int vcpu)
{
    (void)id, (void)vcpu;
    __atomic_sub_fetch(&threads, 1, __ATOMIC_RELAXED);
}

static void block_is_translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(block, QEMU_PLUGIN_ADD_U64, &instructions, qemu_plugin_tb_n_insns(block));
}

static void system_call(qemu_plugin_id_t id, unsigned int vcpu, int64_t number, uint64_t region, uint64_t edge, uint64_t a3,
                        uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    (void)id, (void)vcpu, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (number != MARK)
        return;
    /* written through at once: the guest may be ended by a signal, and what was counted until then still holds */
    fprintf(out, "%" PRIu64 " %" PRIu64 " %" PRIu64 " %d\n", region, edge, instructions, threads);
    fflush(out);
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_plugin_host *host, int argc,
                                                               char **argv)
{
    if (strcmp(host->target_name, "aarch64") != 0) {
        fprintf(stderr, "count: made for aarch64, not for %s\n", host->target_name);
        return -1;
    }
    for (int i = 0; i < argc; i++)
        if (strncmp(argv[i], "out=", 4) == 0)
            out = fopen(argv[i] + 4, "w");
    if (out == NULL) {
        fprintf(stderr, "count: no file to write to: out=FILE is missing, or the file cannot be opened\n");
        return -1;
    }
    qemu_plugin_register_vcpu_init_cb(id, thread_starts);
    qemu_plugin_register_vcpu_exit_cb(id, thread_ends);
    qemu_plugin_register_vcpu_tb_trans_cb(id, block_is_translated);
    qemu_plugin_register_vcpu_syscall_cb(id, system_call);
    return 0;
}
