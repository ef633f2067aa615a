// A library for LD_PRELOAD that lets a program use Intel AMX on a CPU without AMX, slowly: to test that what
// its kernels compute is right, not how fast they are. For Linux on x86-64, and programs that use glibc dynamically.
//
//   gcc -O3 -Wall -Wextra -shared -fPIC -Wl,-z,now -o pretend_amx.so scripts/pretend_amx/pretend_amx.c
//   PRETEND=amx,avx512bf16,avxvnni LD_PRELOAD=./pretend_amx.so program
//
// PRETEND        what CPUID is to announce: amx, avx512bf16, avxvnni. The last two must run natively.
//                Without PRETEND, amx alone.
// PRETEND_DENY   1: the kernel denies the permission to use AMX, with EPERM.
// PRETEND_STATS  1: count the emulated instructions and print the counts at exit.
//
// CPUID raises SIGSEGV once arch_prctl(ARCH_SET_CPUID, 0) has been called (threads and forked children inherit
// this; exec ends it), and AMX instructions raise SIGILL. The handlers of these two signals emulate both.
// What real hardware answers with #UD or #GP ends the program here with a line on stderr and SIGABRT.
// Memory that is not there raises SIGSEGV from within the emulation, with the right si_addr.
//
// What differs from hardware and from Linux:
// - XGETBV does not fault, so XCR0 goes without its bits 17 and 18.
// - A permission asked for with an inline system call, not with libc's functions, is not seen.
// - LDTILECFG, STTILECFG and TILERELEASE need the permission too.
// - Handlers of other signals and forked children see the tiles of the interrupted code; Linux gives them none.
// - Prefixes for segments and address size (64, 65, 67) are not decoded: such an instruction stays illegal.
// - Which of several NaNs goes on, and with which payload, is what this CPU's FMA and this compiler make of it.
#define _GNU_SOURCE
#include "tiles.h"

static void emulate_cpuid(greg_t *regs)
{
    uint32_t leaf = regs[REG_RAX], subleaf = regs[REG_RCX], a, b, c, d;
    raw_syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1, 0, 0, 0, 0);
    __cpuid_count(leaf, subleaf, a, b, c, d);
    raw_syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0, 0, 0, 0, 0);
    if (leaf == 0 && want_amx && a < 0x1e) a = 0x1e;
    if (leaf == 7 && subleaf == 0) {
        if (a < 1) a = 1;
        if (want_amx) d |= 1 << 22 | 1 << 24 | 1 << 25; // AMX-BF16, AMX-TILE, AMX-INT8
    }
    if (leaf == 7 && subleaf == 1) a |= want_bf16 << 5 | want_vnni << 4;
    if (want_amx && (leaf == 0x1d || leaf == 0x1e)) a = b = c = d = 0;
    if (want_amx && leaf == 0x1d && subleaf == 0) a = 1;
    if (want_amx && leaf == 0x1d && subleaf == 1) a = 8192 | 1024 << 16, b = 64 | 8 << 16, c = 16;
    if (want_amx && leaf == 0x1e && subleaf == 0) b = 16 | 64 << 8;
    regs[REG_RAX] = a, regs[REG_RBX] = b, regs[REG_RCX] = c, regs[REG_RDX] = d;
    regs[REG_RIP] += 2;
    count_cpuid++;
}

// Signals. The program's own handlers of SIGSEGV and SIGILL are kept here and get what is not for us.

static struct sigaction theirs[2];
static int (*real_sigaction)(int, const struct sigaction *, struct sigaction *);
static int (*real_sigmask)(int, const sigset_t *, sigset_t *);

// A blocked SIGSEGV or SIGILL would end the program at the next CPUID or AMX instruction.
static void unblock_ours(sigset_t *set) { sigdelset(set, SIGSEGV), sigdelset(set, SIGILL); }

static void chain(int signal, siginfo_t *info, void *context)
{
    struct sigaction *kept = &theirs[signal == SIGILL], action = *kept;
    bool sent = info->si_code <= 0; // by kill or the like: returning would not raise it again
    if (action.sa_handler == SIG_IGN && sent) return;
    if (action.sa_handler == SIG_IGN || action.sa_handler == SIG_DFL) {
        struct sigaction standard = { .sa_handler = SIG_DFL };
        real_sigaction(signal, &standard, NULL);
        if (sent) raise(signal);
        return;
    }
    if (action.sa_flags & SA_RESETHAND) kept->sa_handler = SIG_DFL;
    real_sigmask(SIG_BLOCK, &action.sa_mask, NULL); // until the return from this signal
    if (action.sa_flags & SA_SIGINFO) action.sa_sigaction(signal, info, context);
    else action.sa_handler(signal);
}

static void handle(int signal, siginfo_t *info, void *context)
{
    greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
    const uint8_t *p = (const uint8_t *)regs[REG_RIP];
    if (signal == SIGILL && info->si_code > 0 && want_amx && emulate(regs)) return;
    if (signal == SIGSEGV && info->si_code == SI_KERNEL && p[0] == 0x0f && p[1] == 0xa2) return emulate_cpuid(regs);
    if (signal == SIGSEGV && amx.copying) {
        amx.copying = false;
        say("pretend_amx: %s at 0x%x cannot reach memory at 0x%x", amx.name, amx.rip, (unsigned long)info->si_addr);
    }
    chain(signal, info, context);
}

static __attribute__((constructor(101))) void start(void)
{
    if (started) return;
    started = true;
    const char *list = getenv("PRETEND"), *text;
    if (!list) list = "amx";
    want_amx = strstr(list, "amx"), want_bf16 = strstr(list, "avx512bf16"), want_vnni = strstr(list, "avxvnni");
    uint32_t xcr0, high;
    __asm__ volatile("xgetbv" : "=a"(xcr0), "=d"(high) : "c"(0));
    if (want_amx && xcr0 >> XTILECFG & 1) {
        say("pretend_amx: this machine has AMX, which is left alone");
        want_amx = false;
    }
    deny = (text = getenv("PRETEND_DENY")) && !strcmp(text, "1");
    stats = (text = getenv("PRETEND_STATS")) && !strcmp(text, "1");
    real_sigaction = dlsym(RTLD_NEXT, "sigaction");
    real_sigmask = dlsym(RTLD_NEXT, "pthread_sigmask");
    struct sigaction ours = { .sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };
    real_sigaction(SIGSEGV, &ours, &theirs[0]);
    real_sigaction(SIGILL, &ours, &theirs[1]);
    if (raw_syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0, 0, 0, 0, 0) < 0)
        say("pretend_amx: this CPU or kernel cannot make CPUID fault: it will tell the truth");
}

// What the program calls in place of libc's functions.

int sigaction(int signal, const struct sigaction *action, struct sigaction *old)
{
    start();
    struct sigaction new;
    if (action) {
        new = *action;
        unblock_ours(&new.sa_mask);
    }
    if (signal != SIGSEGV && signal != SIGILL) return real_sigaction(signal, action ? &new : NULL, old);
    if (old) *old = theirs[signal == SIGILL];
    if (action) theirs[signal == SIGILL] = new;
    return 0;
}

static sighandler_t set_handler(int signal, sighandler_t handler, int flags)
{
    struct sigaction new = { .sa_handler = handler, .sa_flags = flags }, old;
    return sigaction(signal, &new, &old) < 0 ? SIG_ERR : old.sa_handler;
}

sighandler_t signal(int number, sighandler_t handler) { return set_handler(number, handler, SA_RESTART); }
sighandler_t sysv_signal(int number, sighandler_t handler)
{
    return set_handler(number, handler, SA_RESETHAND | SA_NODEFER);
}
sighandler_t __sysv_signal(int, sighandler_t) __THROW __attribute__((alias("sysv_signal")));
sighandler_t bsd_signal(int, sighandler_t) __THROW __attribute__((alias("signal")));
sighandler_t ssignal(int, sighandler_t) __THROW __attribute__((alias("signal")));
int __sigaction(int, const struct sigaction *, struct sigaction *) __THROW __attribute__((alias("sigaction")));

int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
    start();
    sigset_t new;
    if (set && how != SIG_UNBLOCK) {
        new = *set;
        unblock_ours(&new);
        set = &new;
    }
    return real_sigmask(how, set, old);
}

int sigprocmask(int how, const sigset_t *set, sigset_t *old)
{
    return with_errno(-pthread_sigmask(how, set, old));
}

static long arch_prctl_with_amx(long code, long argument)
{
    start();
    if (want_amx && code == ARCH_REQ_XCOMP_PERM && argument == XTILEDATA) {
        permitted = permitted || !deny;
        return deny ? -EPERM : 0;
    }
    long result = raw_syscall(SYS_arch_prctl, code, argument, 0, 0, 0, 0);
    if (want_amx && result == 0 && (code == ARCH_GET_XCOMP_SUPP || code == ARCH_GET_XCOMP_PERM))
        *(uint64_t *)argument |= 1 << XTILECFG | (code == ARCH_GET_XCOMP_SUPP || permitted) << XTILEDATA;
    return result;
}

long syscall(long number, ...)
{
    va_list list;
    long a[6];
    va_start(list, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
    va_end(list);
    if (number == SYS_arch_prctl) return with_errno(arch_prctl_with_amx(a[0], a[1]));
    return with_errno(raw_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]));
}

int arch_prctl(int code, unsigned long argument) { return with_errno(arch_prctl_with_amx(code, argument)); }
int __arch_prctl(int, unsigned long) __attribute__((alias("arch_prctl")));
