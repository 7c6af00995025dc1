/* What a library of the kernel has besides the kernel: which of its levels this processor can run, and the few
   functions that a compiler calls unasked, so that the library needs no other. It is compiled for the oldest
   processor of its kind. */

#include <stddef.h>

#define EXPORT __attribute__((visibility("default")))

int version(void), level(void);
void *memset(void *, int, size_t), *memcpy(void *, const void *, size_t);

/* The version of the program format; VERSION in microgpt/engines/kernel.py. */
EXPORT int version(void) { return VERSION; }

#if defined(__x86_64__)
#include <cpuid.h>

static int all(unsigned flags, unsigned wanted) { return (flags & wanted) == wanted; }

/* The levels are those of the x86-64 psABI: each asks for certain instructions, and from the third on for a
   system that saves the wider registers. */
EXPORT int level(void) {
    unsigned a, b, c, d, basic, wide = 0, more = 0, saved = 0;
    if (!__get_cpuid(1, &a, &b, &basic, &d)) return 1;
    if (__get_cpuid(0x80000001, &a, &b, &c, &d)) more = c;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) wide = b;
    if (!all(basic, bit_SSE3 | bit_SSSE3 | bit_SSE41 | bit_SSE42 | bit_CMPXCHG16B | bit_POPCNT)) return 1;
    if (!all(more, bit_LAHF_LM)) return 1;

    if (!all(basic, bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C | bit_MOVBE)) return 2;
    if (!all(more, bit_LZCNT) || !all(wide, bit_AVX2 | bit_BMI | bit_BMI2)) return 2;
    __asm__("xgetbv" : "=a"(saved), "=d"(d) : "c"(0));
    if (!all(saved, 0x06)) return 2; /* XMM, YMM */

    if (!all(wide, bit_AVX512F | bit_AVX512BW | bit_AVX512CD | bit_AVX512DQ | bit_AVX512VL)) return 3;
#if !defined(__APPLE__) /* macOS saves these from their first use on, and does not say so before */
    if (!all(saved, 0xe0)) return 3; /* masks, ZMM */
#endif
    return 4;
}
#else
EXPORT int level(void) { return 1; }
#endif

#if !defined(__APPLE__) /* whose libraries must all link with the system's own, which has these */
void *memset(void *to, int byte, size_t size) {
    for (unsigned char *at = to; size; size--) *at++ = (unsigned char)byte;
    return to;
}

void *memcpy(void *to, const void *from, size_t size) {
    const unsigned char *byte = from;
    for (unsigned char *at = to; size; size--) *at++ = *byte++;
    return to;
}
#endif

#if defined(_WIN32)
int DllMainCRTStartup(void *library, unsigned reason, void *reserved);
void ___chkstk_ms(void);

int DllMainCRTStartup(void *library, unsigned reason, void *reserved) {
    (void)library, (void)reason, (void)reserved;
    return 1; /* there is nothing to set up */
}

/* Windows gives a thread its stack page by page, in order. A function whose frame is larger than a page calls this
   first, with the size in rax; it touches each page and changes no register. */
__attribute__((naked)) void ___chkstk_ms(void) {
    __asm__("    pushq %rax\n"
            "    pushq %rcx\n"
            "    leaq 24(%rsp), %rcx\n" /* the end of the caller's frame */
            "1:  cmpq $4096, %rax\n"
            "    jb 2f\n"
            "    subq $4096, %rcx\n"
            "    orq $0, (%rcx)\n"
            "    subq $4096, %rax\n"
            "    jmp 1b\n"
            "2:  subq %rax, %rcx\n"
            "    orq $0, (%rcx)\n"
            "    popq %rcx\n"
            "    popq %rax\n"
            "    ret");
}
#endif
