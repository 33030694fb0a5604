"""A shuffled order of any number of things that is never written down: where each one goes is computed by itself.

It is a block cipher of as many bits as the numbers need, applied again until the result is in range (Black and Rogaway,
"Ciphers with Arbitrary Finite Domains"). The cipher is Simon (https://eprint.iacr.org/2013/404) with four rounds, which
mixes well and protects nothing. Written here because the order of the rows of every run depends on each bit of it: it
must outlive the libraries of the day.
"""

from functools import lru_cache

ROUNDS = 4
_LEAST_BITS = 16  # with fewer, four rounds leave patterns
_32_BITS = 0xFFFFFFFF


def shuffled(index: int, count: int, seed: int) -> int:
    """Where `index` (0 <= index < count) stands in the order of `count` things that `seed` (below 2**32) gives."""
    bits = max((count - 1).bit_length(), _LEAST_BITS)
    half = (bits + 1) // 2
    mask = (1 << half) - 1
    keys = _keys(seed)
    while True:
        left, right = index >> half, index & mask
        for key in keys:
            # One round: the rotations of one half, mixed into the other.
            one = right << 1 | right >> (half - 1)
            two = right << 2 | right >> (half - 2)
            eight = right << 8 | right >> (half - 8)
            left, right = right, (left ^ (one & eight) ^ two ^ key) & mask
        index = left << half | right
        if index < count:
            return index


@lru_cache(maxsize=64)
def _keys(seed: int) -> tuple[int, ...]:
    """The key of each round, of 32 bits: what `std::seed_seq{seed}.generate` of C++ gives for ROUNDS words."""
    words = [0x8B8B8B8B] * ROUNDS
    for step in range(2 * ROUNDS):
        here, near, far = step % ROUNDS, (step + 1) % ROUNDS, (step + 2) % ROUNDS
        last = words[(step - 1) % ROUNDS]
        if step < ROUNDS:
            drawn = 1664525 * _mixed(words[here] ^ words[near] ^ last)
            more = drawn + (1, 1 + seed)[step] if step < 2 else drawn + here
            words[near], words[far] = (words[near] + drawn) & _32_BITS, (words[far] + more) & _32_BITS
        else:
            drawn = 1566083941 * _mixed((words[here] + words[near] + last) & _32_BITS)
            more = drawn - here
            words[near], words[far] = (words[near] ^ drawn) & _32_BITS, (words[far] ^ more) & _32_BITS
        words[here] = more & _32_BITS
    return tuple(words)


def _mixed(word: int) -> int:
    return word ^ word >> 27
