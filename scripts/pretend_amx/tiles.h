// The emulation of AMX: the state of a thread, the instructions, and how they are decoded.
#include <cpuid.h>
#include <dlfcn.h>
#include <errno.h>
#include <immintrin.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { ARCH_SET_CPUID = 0x1012 };
enum { ARCH_GET_XCOMP_SUPP = 0x1021, ARCH_GET_XCOMP_PERM = 0x1022, ARCH_REQ_XCOMP_PERM = 0x1023 };
enum { XTILECFG = 17, XTILEDATA = 18 };

static bool started, want_amx, want_bf16, want_vnni, deny, stats;
static _Atomic bool permitted;

// The instructions, by opcode, VEX.pp (0: none, 1: 66, 2: F3, 3: F2), and whether ModRM names only registers.
enum kind {
    LDTILECFG, STTILECFG, TILERELEASE, TILEZERO, TILELOADD, TILELOADDT1, TILESTORED,
    TDPBF16PS, TDPBSSD, TDPBSUD, TDPBUSD, TDPBUUD, KINDS
};
static const struct { const char *name; uint8_t opcode, pp, registers; } KIND[KINDS] = {
    { "LDTILECFG", 0x49, 0, 0 }, { "STTILECFG", 0x49, 1, 0 }, { "TILERELEASE", 0x49, 0, 1 },
    { "TILEZERO", 0x49, 3, 1 }, { "TILELOADD", 0x4b, 3, 0 }, { "TILELOADDT1", 0x4b, 1, 0 },
    { "TILESTORED", 0x4b, 2, 0 }, { "TDPBF16PS", 0x5c, 2, 1 }, { "TDPBSSD", 0x5e, 3, 1 },
    { "TDPBSUD", 0x5e, 2, 1 }, { "TDPBUSD", 0x5e, 1, 1 }, { "TDPBUUD", 0x5e, 0, 1 },
};
static _Atomic unsigned count[KINDS], count_cpuid;

// The state of a thread. Bytes of a tile outside its rows and colsb are always zero.
union row { uint8_t bytes[64]; uint32_t dwords[16]; float floats[16]; };
static _Thread_local __attribute__((tls_model("initial-exec"))) struct {
    union row tile[8][16];
    uint8_t rows[8], colsb[8], palette, start_row;
    const char *name; // of the instruction being emulated
    uintptr_t rip;    // its address
    bool copying;     // from or to the program's memory
} amx;

// Messages. No stdio: a handler on a signal stack of 8 KiB has little room, and locks may be held.

static long raw_syscall(long number, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    __asm__ volatile("syscall" : "+a"(number) : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return number;
}

static long with_errno(long result) { return result < 0 && result >= -4095 ? errno = -result, -1 : result; }

// Writes a line to stderr; knows %s, %d for an int, and %x for an unsigned long.
static void say(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    char line[320], digits[20];
    int length = 0, n = 0;
    for (; *format && length < 250; format++) {
        if (*format != '%') { line[length++] = *format; continue; }
        if (*++format == 's') {
            for (const char *s = va_arg(list, const char *); *s && length < 250; s++) line[length++] = *s;
            continue;
        }
        bool hex = *format == 'x';
        unsigned long value = hex ? va_arg(list, unsigned long) : va_arg(list, unsigned), base = hex ? 16 : 10;
        do digits[n++] = "0123456789abcdef"[value % base]; while (value /= base);
        while (n) line[length++] = digits[--n];
    }
    va_end(list);
    line[length++] = '\n';
    raw_syscall(SYS_write, 2, (long)line, length, 0, 0, 0);
}

static __attribute__((destructor)) void print_stats(void)
{
    if (!stats) return;
    stats = false;
    say("pretend_amx: CPUID %d", count_cpuid);
    for (int kind = 0; kind < KINDS; kind++)
        if (count[kind]) say("pretend_amx: %s %d", KIND[kind].name, count[kind]);
}

static __attribute__((noreturn)) void end(void) { print_stats(); abort(); }

// What hardware answers with an exception.
#define fault(...) (say("pretend_amx: %s at 0x%x would fault:", amx.name, amx.rip), say(__VA_ARGS__), end())

// Emulation of AMX, after the sections "Operation" and the exception classes AMX-E1 to AMX-E6 of Intel's SDM.

// Copies from or to the program's memory, which may fault.
static void copy(void *to, const void *from, size_t size)
{
    amx.copying = true;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
    amx.copying = false;
}

static void release(void) { memset(&amx, 0, offsetof(__typeof__(amx), name)); }

// The 64 bytes: 0 palette, 1 start_row, 16 to 31 colsb of eight tiles (words), 48 to 55 their rows, others zero.
static void load_config(const void *address)
{
    uint8_t config[64];
    copy(config, address, 64);
    if (config[0] > 1) fault("palette %d is not 0 or 1", config[0]);
    if (config[0] == 0) { release(); return; } // the other bytes do not matter
    for (int i = 2; i < 64; i++)
        if (config[i] && (i < 16 || (i >= 32 && i < 48) || i >= 56))
            fault("byte %d of the configuration is not zero", i);
    for (int t = 0; t < 8; t++) {
        int colsb = config[16 + 2 * t] | config[17 + 2 * t] << 8, rows = config[48 + t];
        if (colsb > 64 || rows > 16) fault("tmm%d has %d rows of %d bytes, more than 16 or 64", t, rows, colsb);
        if (!colsb != !rows) fault("tmm%d has %d rows of %d bytes, only one of them zero", t, rows, colsb);
    }
    release();
    amx.palette = config[0];
    amx.start_row = config[1];
    for (int t = 0; t < 8; t++) {
        amx.colsb[t] = config[16 + 2 * t];
        amx.rows[t] = config[48 + t];
    }
}

static void store_config(void *address)
{
    uint8_t config[64] = { amx.palette, amx.start_row };
    for (int t = 0; t < 8; t++) {
        config[16 + 2 * t] = amx.colsb[t];
        config[48 + t] = amx.rows[t];
    }
    copy(address, config, 64);
}

static void need_valid(int t)
{
    if (!amx.palette) fault("no tiles are configured");
    if (t > 7) fault("there is no tmm%d", t);
    if (!amx.rows[t]) fault("tmm%d is not configured", t);
}

// TILELOADD and TILESTORED. As in hardware, a fault in the middle leaves start_row at the row that faulted.
static void move_tile(int t, char *address, long stride, bool load)
{
    need_valid(t);
    if (amx.colsb[t] % 4) fault("tmm%d has rows of %d bytes, not a multiple of 4", t, amx.colsb[t]);
    if (amx.start_row >= amx.rows[t])
        fault("start_row %d is not one of tmm%d's %d rows", amx.start_row, t, amx.rows[t]);
    if (load) memset(amx.tile[t][amx.start_row].bytes, 0, 64 * (16 - amx.start_row));
    for (; amx.start_row < amx.rows[t]; amx.start_row++) {
        char *memory = address + amx.start_row * stride;
        char *row = (char *)amx.tile[t][amx.start_row].bytes;
        copy(load ? row : memory, load ? memory : row, amx.colsb[t]);
    }
    amx.start_row = 0;
}

static float float_of(uint32_t bits) { return (union { uint32_t bits; float value; }){ bits }.value; }

// One row of TDPBF16PS. The products with even and with odd 2k+i have a float32 sum each, which begins at zero
// and takes one product after another by a fused multiply-add; then c += even + odd. The caller sets MXCSR.
static __attribute__((noinline, target("fma"))) void
dot_bf16(float *c, const uint32_t *a, const union row *b, int depth, int width)
{
    float even[16] = { 0 }, odd[16] = { 0 };
    for (int k = 0; k < depth; k++) {
        float a_even = float_of(a[k] << 16), a_odd = float_of(a[k] & 0xffff0000);
        for (int n = 0; n < width; n++) {
            even[n] = __builtin_fmaf(a_even, float_of(b[k].dwords[n] << 16), even[n]);
            odd[n] = __builtin_fmaf(a_odd, float_of(b[k].dwords[n] & 0xffff0000), odd[n]);
        }
    }
    for (int n = 0; n < width; n++) c[n] += even[n] + odd[n];
}

// One row of the products of bytes: 32-bit sums that wrap around. (x ^ 128) - 128 extends the sign of a byte.
static void
dot_bytes(uint32_t *c, const uint8_t *a, const union row *b, int depth, int width, bool a_signed, bool b_signed)
{
    int sign_a = a_signed ? 128 : 0, sign_b = b_signed ? 128 : 0;
    for (int k = 0; k < depth; k++)
        for (int i = 0; i < 4; i++)
            for (int n = 0, x = (a[4 * k + i] ^ sign_a) - sign_a; n < width; n++)
                c[n] += x * ((b[k].bytes[4 * n + i] ^ sign_b) - sign_b);
}

// c += a * b
static void multiply(enum kind kind, int c, int a, int b)
{
    if (c == a || c == b || a == b) fault("tmm%d, tmm%d and tmm%d are not three tiles", c, a, b);
    need_valid(c), need_valid(a), need_valid(b);
    if (amx.rows[c] != amx.rows[a] || amx.colsb[c] != amx.colsb[b] || amx.colsb[a] / 4 != amx.rows[b]
        || amx.colsb[a] % 4 || amx.colsb[b] % 4)
        fault("shapes (rows x bytes) do not fit: tmm%d %dx%d += tmm%d %dx%d * tmm%d %dx%d",
              c, amx.rows[c], amx.colsb[c], a, amx.rows[a], amx.colsb[a], b, amx.rows[b], amx.colsb[b]);
    int depth = amx.rows[b], width = amx.colsb[c] / 4;
    // Round to nearest, denormals are zeros, results flush to zero, no exceptions; until the return from the signal.
    _mm_setcsr(0x9fc0);
    for (int m = 0; m < amx.rows[c]; m++) {
        union row *sum = &amx.tile[c][m], *row = &amx.tile[a][m];
        if (kind == TDPBF16PS) dot_bf16(sum->floats, row->dwords, amx.tile[b], depth, width);
        else dot_bytes(sum->dwords, row->bytes, amx.tile[b], depth, width, kind == TDPBSSD || kind == TDPBSUD,
                       kind == TDPBSSD || kind == TDPBUSD);
    }
    amx.start_row = 0;
}

// The program's registers by their numbers in instructions.
static uint64_t reg(const greg_t *regs, int number)
{
    static const uint8_t place[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                       REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };
    return regs[place[number]];
}

// Decodes the memory operand whose ModRM is at p: its address without the index, and the scaled index.
// Returns the end of the instruction (none of these has an immediate).
static const uint8_t *operand(const uint8_t *p, const greg_t *regs, uint64_t *address, uint64_t *index, int x, int b)
{
    int mod = *p >> 6, rm = *p & 7, displacement = mod == 1 ? 1 : mod == 2 ? 4 : 0;
    p++;
    *address = *index = 0;
    if (rm == 4) {
        int base = *p & 7, number = (*p >> 3 & 7) | x << 3;
        if (number != 4) *index = reg(regs, number) << (*p >> 6); // 4, in place of RSP, means no index
        if (mod == 0 && base == 5) displacement = 4;              // and this means no base
        else *address = reg(regs, base | b << 3);
        p++;
    } else if (mod == 0 && rm == 5) { // relative to the next instruction
        displacement = 4;
        *address = (uintptr_t)p + 4;
    } else {
        *address = reg(regs, rm | b << 3);
    }
    int32_t far = displacement == 1 ? (int8_t)*p : 0;
    if (displacement == 4) memcpy(&far, p, 4);
    *address += (int64_t)far;
    return p + displacement;
}

// Emulates the instruction at RIP if it is one of AMX.
static bool emulate(greg_t *regs)
{
    const uint8_t *p = (const uint8_t *)regs[REG_RIP], *next = p + 5;
    if (p[0] != 0xc4 || (p[1] & 0x1f) != 2) return false;
    if (p[3] != 0x49 && p[3] != 0x4b && p[3] != 0x5c && p[3] != 0x5e) return false;
    int r = !(p[1] & 0x80), x = !(p[1] & 0x40), b = !(p[1] & 0x20), w = p[2] >> 7, l = p[2] >> 2 & 1, pp = p[2] & 3;
    int vvvv = ~p[2] >> 3 & 15, modrm = p[4], tile = (modrm >> 3 & 7) | r << 3, rm = (modrm & 7) | b << 3;
    bool registers = modrm >= 0xc0;
    enum kind kind = 0;
    while (kind < KINDS && (KIND[kind].opcode != p[3] || KIND[kind].pp != pp || KIND[kind].registers != registers))
        kind++;
    amx.name = kind < KINDS ? KIND[kind].name : "an unknown instruction";
    amx.rip = regs[REG_RIP];
    if (kind == KINDS) fault("opcode 0x%x, VEX.pp %d: not of AMX-TILE, AMX-INT8, AMX-BF16", (unsigned long)p[3], pp);
    bool is_tile_memory = p[3] == 0x4b, is_product = kind >= TDPBF16PS;
    if (w || l || (vvvv && !is_product) || (is_tile_memory && (modrm & 7) != 4) // that is, SIB
        || (kind == TILERELEASE && (modrm != 0xc0 || r || b)) || (kind == TILEZERO && rm)
        || ((kind == LDTILECFG || kind == STTILECFG) && tile))
        fault("its encoding is not valid");
    if (!permitted) fault("the process has not got the permission by ARCH_REQ_XCOMP_PERM");

    uint64_t address = 0, index = 0;
    if (!registers) next = operand(p + 4, regs, &address, &index, x, b);
    switch (kind) {
    case LDTILECFG: load_config((void *)(address + index)); break;
    case STTILECFG: store_config((void *)(address + index)); break;
    case TILERELEASE: release(); break;
    case TILEZERO:
        need_valid(tile);
        memset(amx.tile[tile], 0, sizeof amx.tile[tile]);
        amx.start_row = 0;
        break;
    case TILELOADD: case TILELOADDT1: case TILESTORED:
        move_tile(tile, (char *)address, index, kind != TILESTORED);
        break;
    default: multiply(kind, tile, rm, vvvv);
    }
    count[kind]++;
    regs[REG_RIP] = (uintptr_t)next;
    return true;
}
