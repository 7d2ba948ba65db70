/*
 * A QEMU plugin that counts how often each translated block of guest instructions was executed between marks.
 *
 * Marks are those of count.c: syscall(MARK, region, edge), where edge 0 opens a region and 1 closes it. The file named with the
 * argument out=FILE gets three kinds of lines:
 *
 *     block ID ADDRESS CODE       before the first mention of a block; ADDRESS and CODE are hexadecimal, CODE in the order of memory
 *     runs ID EXECUTIONS          since the last mark, if a region was open
 *     mark REGION EDGE            after the counts up to and including the call itself
 *
 * Blocks that the emulator translates again get another ID. As in count.c the counters are exact for one running thread only,
 * and a block is counted as it is entered.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qemu_plugin.h"

#ifndef MARK
#error "define MARK, the number of the marking system call"
#endif

/* what this plugin uses of the interface beyond count.c */
struct qemu_plugin_insn;
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *block);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *block, size_t place);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *instruction);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *instruction);

__attribute__((visibility("default"))) int qemu_plugin_version = PLUGIN_INTERFACE_VERSION;

struct block {
    struct block *next;
    uint64_t id, address, executions;
    int is_written;
    size_t size;
    unsigned char code[];
};

static struct block *blocks; /* the newest first; none is ever freed, since translated code adds to its counter */
static uint64_t next_id;
static int open_regions;
static FILE *out;

static void block_is_translated(qemu_plugin_id_t id, struct qemu_plugin_tb *translated)
{
    (void)id;
    size_t count = qemu_plugin_tb_n_insns(translated), size = 0;
    for (size_t i = 0; i < count; i++)
        size += qemu_plugin_insn_size(qemu_plugin_tb_get_insn(translated, i));
    struct block *block = calloc(1, sizeof *block + size);
    if (block == NULL) {
        fprintf(stderr, "blocks: out of memory\n");
        abort();
    }
    for (size_t i = 0; i < count; i++) {
        const struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(translated, i);
        size_t length = qemu_plugin_insn_size(instruction);
        memcpy(block->code + block->size, qemu_plugin_insn_data(instruction), length);
        block->size += length;
    }
    block->id = next_id++;
    block->address = qemu_plugin_tb_vaddr(translated);
    block->next = blocks;
    blocks = block;
    qemu_plugin_register_vcpu_tb_exec_inline(translated, QEMU_PLUGIN_ADD_U64, &block->executions, 1);
}

static void write_executions(struct block *block)
{
    if (!block->is_written) {
        fprintf(out, "block %" PRIu64 " %" PRIx64 " ", block->id, block->address);
        for (size_t i = 0; i < block->size; i++)
            fprintf(out, "%02x", block->code[i]);
        fputc('\n', out);
        block->is_written = 1;
    }
    fprintf(out, "runs %" PRIu64 " %" PRIu64 "\n", block->id, block->executions);
}

static void system_call(qemu_plugin_id_t id, unsigned int vcpu, int64_t number, uint64_t region, uint64_t edge, uint64_t a3,
                        uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    (void)id, (void)vcpu, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (number != MARK)
        return;
    for (struct block *block = blocks; block != NULL; block = block->next) {
        if (block->executions != 0 && open_regions > 0)
            write_executions(block);
        block->executions = 0;
    }
    /* a region that an error ended stays open: its counts are written in vain, and the reader leaves them out */
    open_regions += edge == 0 ? 1 : -1;
    fprintf(out, "mark %" PRIu64 " %" PRIu64 "\n", region, edge);
    fflush(out);
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_plugin_host *host, int argc,
                                                               char **argv)
{
    if (strcmp(host->target_name, "aarch64") != 0) {
        fprintf(stderr, "blocks: made for aarch64, not for %s\n", host->target_name);
        return -1;
    }
    for (int i = 0; i < argc; i++)
        if (strncmp(argv[i], "out=", 4) == 0)
            out = fopen(argv[i] + 4, "w");
    if (out == NULL) {
        fprintf(stderr, "blocks: no file to write to: out=FILE is missing, or the file cannot be opened\n");
        return -1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, block_is_translated);
    qemu_plugin_register_vcpu_syscall_cb(id, system_call);
    return 0;
}
