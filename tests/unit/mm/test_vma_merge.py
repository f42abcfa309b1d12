# SPDX-License-Identifier: GPL-2.0-or-later
"""Every merge case of spec R4, drawn, with everything of R2 that can stand against it.

A letter is a page of an area, a dot is a hole; pages marked ``*`` in the line below are the range that changes or is
newly mapped. A picture of the result names areas by their identity: the survivor keeps its letter, ``?`` is an area
that was not there. "6.7" is the default, "6.18" has the later merge rules on.
"""

from __future__ import annotations

import errno
from itertools import groupby

import pytest

from memtwin import Machine
from memtwin.abi import mman
from memtwin.events.reason import Because
from memtwin.mm.fault_inject import FaultInjection
from memtwin.mm.vm_ops import VmOperations
from memtwin.mm.vma import NoMerge, explain_merge

PAGE, BASE = 4096, 0x1000000000
RW = mman.PROT_READ | mman.PROT_WRITE
ANON = mman.MAP_PRIVATE | mman.MAP_ANONYMOUS | mman.MAP_FIXED
PRIVATE = mman.MAP_PRIVATE | mman.MAP_FIXED
BIND, DEFAULT, MLOCK_ONFAULT = 2, 0, 1
KERNELS = ("6.7", "6.18")


class Closing(VmOperations):
    """Operations that want to know when an area goes."""

    has_close = True

    def __init__(self) -> None:
        self.closed = []

    def close(self, vma):
        self.closed.append(vma)


class Space:
    """A process and the areas of a picture in it, by letter."""

    def __init__(self, **machine):
        self.machine = Machine("16M", **machine)
        self.p = self.machine.spawn()
        self.areas = {}

    def draw(self, picture, attributes=None, *, fd=-1, faulted=""):
        """Map the runs of ``picture``, anonymous or of a file with contiguous offsets. ``attributes``: letter -> what
        :meth:`give` does to it, so that neighbours stay apart; ``faulted``: letters whose pages are written.
        """
        attributes = attributes or {}
        for start, pages, letter in sorted(runs(picture), key=lambda run: run[2] not in attributes):
            flags, offset = (ANON, 0) if fd < 0 else (PRIVATE, start * PAGE)
            self.p.mmap(BASE + start * PAGE, pages * PAGE, RW, flags, fd, offset)
            self.give((start, pages), attributes.get(letter))
        self.areas = {letter: self.at(start) for start, _, letter in runs(picture)}
        for letter in faulted:
            vma = self.areas[letter]
            self.p.populate(vma.start, vma.end - vma.start)
        assert self.picture() == picture, "the areas are apart in the beginning"
        return self

    def give(self, where, attribute, back=False):
        """Change one attribute of the pages ``where`` = (first, count), or change it back."""
        addr, length = BASE + where[0] * PAGE, where[1] * PAGE
        if attribute == "dontdump":
            self.p.madvise(addr, length, mman.MADV_DODUMP if back else mman.MADV_DONTDUMP)
        elif attribute == "exec":
            self.p.mprotect(addr, length, RW if back else RW | mman.PROT_EXEC)
        elif attribute == "random":
            self.p.madvise(addr, length, mman.MADV_NORMAL if back else mman.MADV_RANDOM)
        elif attribute == "policy":
            self.p.mbind(addr, length, DEFAULT if back else BIND, 0 if back else 1)
        elif attribute == "locked":
            self.p.munlock(addr, length) if back else self.p.mlock2(addr, length, MLOCK_ONFAULT)
        elif attribute == "name":
            self.p.prctl_set_vma_anon_name(addr, length, None if back else "x")
        else:
            assert attribute is None

    def at(self, page):
        return next((v for v in self.p.vmas() if v.start <= BASE + page * PAGE < v.end), None)

    def picture(self):
        letters = {id(vma): letter for letter, vma in self.areas.items()}
        found = [self.at(page) for page in range(12)]
        return "".join("." if v is None else letters.get(id(v), "?") for v in found).rstrip(".")

    def reasons(self, below, above):
        return [str(why) for why in explain_merge(self.areas[below], self.areas[above])]

    def end(self):
        self.machine.check()
        self.p.exit()
        self.machine.check()
        self.machine.kernel.check_no_leak()
        self.machine.close()


def runs(picture):
    """(first page, pages, letter) of each area of a picture."""
    start = 0
    for letter, group in groupby(picture):
        pages = len(list(group))
        if letter not in ". ":
            yield start, pages, letter
        start += pages


def stars(line):
    return next((start, pages) for start, pages, letter in runs(line) if letter == "*")


@pytest.fixture
def space():
    made = []

    def make(**machine):
        made.append(Space(**machine))
        return made[-1]

    yield make
    for each in made:
        each.end()


def shape_of(kernel):
    """Machine options: the two kernels, and 6.7 with the seven inlined copies."""
    return {"kernel": "6.7", "without": ("vma-modify",)} if kernel == "inlined" else {"kernel": kernel}


# -- cases 1, 2, 3: a new mapping in a hole -------------------------------------------------------------------------

NEW = "...***...."


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("PPP...NNN", "PPPPPPPPP"),  # case 1
        ("PPP", "PPPPPP"),  # case 2
        ("......NNN", "...NNNNNN"),  # case 3
        ("PP....NNN", "PP.NNNNNN"),
        ("PPP....NN", "PPPPPP.NN"),
        ("PP.....NN", "PP.???.NN"),
    ],
)
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_new_mapping(space, kernel, before, after):
    s = space(kernel=kernel).draw(before)
    count = s.p.mm.map_count
    s.p.mmap(BASE + 3 * PAGE, 3 * PAGE, RW, ANON)
    assert s.picture() == after
    assert s.p.mm.map_count - count == len(list(runs(after))) - len(list(runs(before)))
    survivor = s.at(3)
    assert survivor.pgoff == survivor.start >> 12


@pytest.mark.parametrize(
    ("faulted", "old", "new"),
    [
        ("", "PPPPPPPPP", "PPPPPPPPP"),
        ("P", "PPPPPPPPP", "PPPPPPPPP"),
        ("N", "PPPNNNNNN", "PPPPPPPPP"),
        ("PN", "PPPNNNNNN", "PPPPPPNNN"),
    ],
)
def test_a_hole_between_faulted_areas(space, faulted, old, new):
    """R3: 6.7 looks at N first, later kernels at P first."""
    for kernel, after in (("6.7", old), ("6.18", new)):
        s = space(kernel=kernel).draw("PPP...NNN", faulted=faulted)
        anon_vmas = [s.areas[letter].anon_vma for letter in faulted]
        s.p.mmap(BASE + 3 * PAGE, 3 * PAGE, RW, ANON)
        assert s.picture() == after
        if after == "PPPPPPPPP":
            assert s.at(3).anon_vma is (anon_vmas[0] if faulted else None)
            assert len(s.at(3).anon_vma_chain) == len(faulted)


def test_a_hole_between_areas_of_one_anon_vma(space):
    """What was cut out of one faulted area fits to both sides again."""
    for kernel in KERNELS:
        s = space(kernel=kernel).draw("PPPPPPPPP", faulted="P")
        s.p.munmap(BASE + 3 * PAGE, 3 * PAGE)
        assert s.at(0).anon_vma is s.at(6).anon_vma is not None
        s.p.mmap(BASE + 3 * PAGE, 3 * PAGE, RW, ANON)
        assert len(set(map(id, map(s.at, range(9))))) == 1


# -- cases 4 to 8: an attribute changes -----------------------------------------------------------------------------

#: number -> (before, range, letters that have the odd attribute, after). The attribute is given to or taken from the
#: range, so that it becomes like the neighbour that is to merge.
CASES = {
    4: ("PPPPPNNN", "...**", "P", "PPPNNNNN"),
    5: ("PPPCCCCC", "   **", "C", "PPPPPCCC"),
    6: ("PPPCCCNNN", "   ***", "C", "PPPPPPPPP"),
    7: ("PPPCCC", "   ***", "C", "PPPPPP"),
    8: ("CCCNNN", "***", "C", "NNNNNN"),
}


@pytest.mark.parametrize("kernel", (*KERNELS, "inlined"))
@pytest.mark.parametrize("attribute", ["dontdump", "exec", "random", "policy", "locked", "name"])
@pytest.mark.parametrize("case", CASES)
def test_the_cases(space, case, attribute, kernel):
    before, line, odd, after = CASES[case]
    s = space(**shape_of(kernel), config=("ANON_VMA_NAME",)).draw(before, {odd: attribute})
    gone = [vma for letter, vma in s.areas.items() if letter not in after]
    count = s.p.mm.map_count
    s.give(stars(line), attribute, back=True)
    assert s.picture() == after
    assert s.p.mm.map_count == count - len(gone)
    assert all(vma not in s.p.vmas() for vma in gone)
    assert all(vma.pgoff == vma.start >> 12 for vma in s.p.vmas()[: len(set(after))])


@pytest.mark.parametrize("kernel", (*KERNELS, "inlined"))
@pytest.mark.parametrize(
    ("before", "line", "after"),
    [
        ("PPPPPPPP", "   **", "???PP???"),  # strictly inside: never merges; the new objects get the ends
        ("PPPPPPPP", "***", "PPP?????"),
        ("PPPPPPPP", "     ***", "?????PPP"),
        ("PPPPPPPP", "********", "PPPPPPPP"),
    ],
)
def test_nothing_fits_so_the_range_is_cut_out(space, kernel, before, line, after):
    s = space(**shape_of(kernel)).draw(before)
    s.give(stars(line), "random")
    assert s.picture() == after


def test_inside_an_area_between_fitting_ones_never_merges(space):
    s = space().draw("PPPCCCCNNN", {"C": "random"})
    s.give((4, 2), "random", back=True)
    assert s.picture() == "PPP?CC?NNN"


@pytest.mark.parametrize(
    ("faulted", "old", "new"),
    [
        ("", "PPPPPPPPP", None),
        ("P", "PPPPPPPPP", None),
        ("N", "PPPPPPPPP", None),
        ("C", "PPPCCCNNN", "PPPPPPPPP"),
        ("PN", "PPPPPPNNN", None),  # both fit, but not to each other: P wins
        ("PC", "PPPCCCNNN", "PPPNNNNNN"),
        ("CN", "PPPCCCNNN", "PPPPPPNNN"),
        ("PCN", "PPPCCCNNN", None),
    ],
)
def test_faulted_each_for_itself(space, faulted, old, new):
    """Areas that differed by DONTDUMP when they were faulted have anon_vmas of their own (R6). A faulted range fits to
    an unfaulted neighbour only since 6.16 (R2 h).
    """
    for kernel, after in (("6.7", old), ("inlined", old), ("6.18", new or old)):
        s = space(**shape_of(kernel)).draw("PPPCCCNNN", {"C": "dontdump"}, faulted=faulted)
        owners = {letter: vma.anon_vma for letter, vma in s.areas.items()}
        assert len({anon.id for anon in owners.values() if anon}) == len(faulted)
        s.give((3, 3), "dontdump", back=True)
        assert s.picture() == after
        survivors = {letter: s.areas[letter] for letter in set(after)}
        for letter, vma in survivors.items():
            assert len(vma.anon_vma_chain) == (vma.anon_vma is not None)
            assert owners[letter] is None or vma.anon_vma is owners[letter], "an area never loses its own anon_vma"
        if after == "PPPPPPPPP" and faulted:
            assert survivors["P"].anon_vma is owners[faulted], "P took over the only chain"


@pytest.mark.parametrize(
    ("faulted", "old", "new"),
    [
        ("PC", "PPPPPPNNN", "PPPPPPPPP"),
        ("CN", "PPPNNNNNN", "PPPPPPPPP"),
        ("PCN", "PPPPPPPPP", None),
        ("C", "PPPCCCNNN", "PPPPPPPPP"),
    ],
)
def test_faulted_with_one_anon_vma(space, faulted, old, new):
    """Areas that differed by rights only share an anon_vma, so that they can merge when the rights are equal (R6)."""
    for kernel, after in (("6.7", old), ("6.18", new or old)):
        s = space(kernel=kernel).draw("PPPCCCNNN", {"C": "exec"}, faulted=faulted)
        assert len({s.areas[letter].anon_vma.id for letter in faulted}) == 1
        s.give((3, 3), "exec", back=True)
        assert s.picture() == after


@pytest.mark.parametrize(
    ("case", "faulted", "old", "new"),
    [
        (4, "P", "???PPNNN", "PPPNNNNN"),
        (4, "N", "PPPNNNNN", None),
        (5, "C", "PPPCC???", "PPPPPCCC"),
        (5, "P", "PPPPPCCC", None),
        (7, "P", "PPPPPP", None),
        (7, "C", "PPPCCC", "PPPPPP"),
        (8, "N", "NNNNNN", None),
        (8, "C", "CCCNNN", "NNNNNN"),
    ],
)
def test_parts_of_faulted_areas(space, case, faulted, old, new):
    before, line, odd, _ = CASES[case]
    for kernel, after in (("6.7", old), ("6.18", new or old)):
        s = space(kernel=kernel).draw(before, {odd: "dontdump"}, faulted=faulted)
        own = s.areas[faulted].anon_vma
        s.give(stars(line), "dontdump", back=True)
        assert s.picture() == after
        assert all(s.at(page).anon_vma is own for page in range(8) if s.at(page) and after[page] in (faulted, "?"))


def test_an_anon_vma_shared_with_an_ancestor_does_not_fit(space):
    """R2 (h): a chain of two entries is not "exactly one"."""
    for kernel in KERNELS:
        s = space(kernel=kernel).draw("PPP", faulted="P")
        child = s.p.fork()
        inherited = child.vmas()[0]
        assert (len(inherited.anon_vma_chain), len(s.areas["P"].anon_vma_chain)) == (2, 1)
        for p in (child, s.p):
            p.mmap(BASE + 3 * PAGE, 3 * PAGE, RW, ANON)
        assert s.picture() == "PPPPPP"
        below, above = child.vmas()[:2]
        assert (below.end, above.end) == (BASE + 3 * PAGE, BASE + 6 * PAGE)
        (why,) = explain_merge(below, above)
        assert why == NoMerge.ANON_VMA_INCOMPATIBLE("faulted, chain 2", "unfaulted, chain 0")
        child.exit()


# -- what stands against it, and what is said about it --------------------------------------------------------------


def memfd(s, pages=24):
    fd = s.p.memfd_create("m")
    s.p.ftruncate(fd, pages * PAGE)
    return fd


def test_files(space):
    s = space()
    s.draw("PPP", fd=memfd(s))
    fd = memfd(s)
    s.p.mmap(BASE + 3 * PAGE, 3 * PAGE, RW, PRIVATE, fd, 3 * PAGE)
    s.areas["C"] = s.at(3)
    s.p.mmap(BASE + 6 * PAGE, 3 * PAGE, RW, PRIVATE, fd, 7 * PAGE)
    s.areas["N"] = s.at(6)
    s.p.mmap(BASE + 9 * PAGE, 3 * PAGE, RW, PRIVATE, fd, 10 * PAGE)
    assert s.picture() == "PPPCCCNNNNNN"
    assert s.reasons("P", "C") == ["FILE_DIFFERS"]
    assert s.reasons("C", "N") == ["OFFSET_DIFFERS(0x6, 0x7)"]


def test_a_file_and_anonymous_memory(space):
    s = space()
    s.draw("PPP", fd=memfd(s))
    s.p.mmap(BASE + 3 * PAGE, 3 * PAGE, RW, ANON)
    s.areas["N"] = s.at(3)
    assert s.picture() == "PPPNNN"
    assert s.reasons("P", "N") == ["FILE_DIFFERS", f"OFFSET_DIFFERS(0x3, {(BASE >> 12) + 3:#x})"]


@pytest.mark.parametrize(
    ("attribute", "reason"),
    [
        ("dontdump", "FLAGS_DIFFER(VM_DONTDUMP)"),
        ("exec", "FLAGS_DIFFER(VM_EXEC)"),
        ("random", "FLAGS_DIFFER(VM_RAND_READ)"),
        ("locked", "FLAGS_DIFFER(VM_LOCKED|VM_LOCKONFAULT)"),
        ("policy", "POLICY_DIFFERS"),
        ("name", "ANON_NAME_DIFFERS"),
    ],
)
def test_reasons_of_attributes(space, attribute, reason):
    s = space(config=("ANON_VMA_NAME",)).draw("PPPNNN", {"N": attribute})
    assert [why for why in s.reasons("P", "N") if not why.startswith("ANON_VMA")] == [reason]


def test_equal_policies_and_names_merge(space):
    for attribute in ("policy", "name"):
        s = space(config=("ANON_VMA_NAME",)).draw("PPPCCCNNN", {"P": attribute, "N": attribute})
        s.give((3, 3), attribute)
        assert s.picture() == "PPPPPPPPP"


def test_a_new_mapping_has_no_policy_and_no_name(space):
    for attribute in ("policy", "name"):
        s = space(config=("ANON_VMA_NAME",)).draw("PPP...NNN", {"P": attribute, "N": attribute})
        s.p.mmap(BASE + 3 * PAGE, 3 * PAGE, RW, ANON)
        assert s.picture() == "PPP???NNN"


def test_userfaultfds(space):
    """R2 (e): the same context, not only the same flags."""
    s = space().draw("PPPPPP")
    first, second = (s.p.userfaultfd() for _ in range(2))
    for fd in (first, second):
        s.p.uffd_api(fd, 0)
    s.p.uffd_register(first, BASE, 3 * PAGE, 1)
    s.p.uffd_register(second, BASE + 3 * PAGE, 3 * PAGE, 1)
    s.areas = {"P": s.at(0), "N": s.at(3)}
    assert s.picture() == "PPPNNN"
    assert s.reasons("P", "N") == ["UFFD_CTX_DIFFERS"]
    s.p.close(second)
    assert s.reasons("P", "N")[0] == "FLAGS_DIFFER(VM_UFFD_MISSING)"
    s.p.uffd_register(first, BASE + 3 * PAGE, 3 * PAGE, 1)
    assert s.picture() in ("PPPPPP", "NNNNNN")


def test_page_offsets_of_moved_areas(space):
    """R2 (c): a faulted area keeps its page offsets when it moves, an unfaulted one takes those of its new place."""
    for faulted in (False, True):
        s = space().draw("PPP...NNN")
        away = BASE + 100 * PAGE
        s.p.mmap(away, 3 * PAGE, RW, ANON)
        if faulted:
            s.p.populate(away, 3 * PAGE)
        s.p.mremap(away, 3 * PAGE, 3 * PAGE, mman.MREMAP_MAYMOVE | mman.MREMAP_FIXED, BASE + 3 * PAGE)
        if not faulted:
            assert s.picture() == "PPPPPPPPP"
            continue
        assert s.picture() == "PPP???NNN"
        s.areas["C"] = s.at(3)
        moved = (away >> 12, (BASE >> 12) + 3)
        assert s.reasons("P", "C") == [f"OFFSET_DIFFERS({moved[1]:#x}, {moved[0]:#x})"]
        assert s.reasons("C", "N") == [f"OFFSET_DIFFERS({moved[0] + 3:#x}, {moved[1] + 3:#x})"]


def test_areas_apart_only_because_nobody_tried(space):
    s = space().draw("PPPPPP")
    s.p.kernel.mm_ctx.sysctl.max_map_count = s.p.mm.map_count + 1
    with pytest.raises(OSError) as caught:
        s.give((2, 2), "random")
    assert caught.value.errno == errno.EAGAIN
    assert s.picture() == "??PPPP", "a split that was made stays"
    s.areas["L"] = s.at(0)
    assert s.reasons("L", "P") == ["SPLIT_BY_HISTORY"]
    assert s.reasons("P", "L")[0] == "NOT_ADJACENT"
    assert isinstance(NoMerge.OFFSET_DIFFERS("1", "2"), Because)


# -- close operations -----------------------------------------------------------------------------------------------


def closing(space, picture, letters, odd, kernel):
    """Areas of one file, of which some have operations with a close."""
    s = space(kernel=kernel)
    ops = Closing()
    s.draw(picture, dict.fromkeys(odd, "random"), fd=memfd(s))
    for letter in letters:
        s.areas[letter].vm_ops = ops
    return s, ops


@pytest.mark.parametrize(
    ("case", "letters", "old", "new"),
    [
        # 6.7 never merges before an N that has a close, whether or not N would be removed.
        (4, "N", "???PPNNN", "PPPNNNNN"),
        (4, "P", "PPPNNNNN", None),
        (5, "P", "PPPPPCCC", None),
        (5, "C", "PPPPPCCC", None),
        (6, "P", "PPPPPPPPP", None),
        (6, "N", "PPPPPPNNN", None),  # only P and C become one
        (6, "C", "PPPPPPPPP", "PPPCCCNNN"),  # 6.7 removes C without asking
        (7, "P", "PPPPPP", None),
        (7, "C", "PPPPPP", "PPPCCC"),  # the defect of 6.7
        (6, "PCN", "PPPPPPNNN", "PPPCCCNNN"),  # SysV shm: two areas in 6.7, three later
        (8, "N", "CCCNNN", "NNNNNN"),
        (8, "C", "NNNNNN", "CCCNNN"),
    ],
)
def test_close_operations(space, case, letters, old, new):
    """R2 (d), R4, knob post-merge-close-fix."""
    before, line, odd, _ = CASES[case]
    for kernel, after in (("6.7", old), ("6.18", new or old)):
        s, ops = closing(space, before, letters, odd, kernel)
        s.give(stars(line), "random", back=True)
        assert s.picture() == after
        assert ops.closed == [], "a merge calls no close: what it removes leaks what close would have given back"
        mapped = [vma for vma in s.p.vmas() if vma.vm_ops is ops]
        s.p.munmap(BASE, 12 * PAGE)
        assert sorted(vma.addr for vma in ops.closed) == sorted(vma.addr for vma in mapped)


@pytest.mark.parametrize(
    ("before", "letters", "old", "new"),
    [
        ("PPP...NNN", "N", "PPPPPPNNN", None),
        ("PPP...NNN", "P", "PPPPPPPPP", None),
        ("......NNN", "N", "...???NNN", "...NNNNNN"),
        ("PPP", "P", "PPPPPP", None),
    ],
)
def test_close_operations_and_new_mappings(space, before, letters, old, new):
    for kernel, after in (("6.7", old), ("6.18", new or old)):
        s = space(kernel=kernel)
        fd, ops = memfd(s), Closing()
        s.draw(before, fd=fd)
        for letter in letters:
            s.areas[letter].vm_ops = ops
        s.p.mmap(BASE + 3 * PAGE, 3 * PAGE, RW, PRIVATE, fd, 3 * PAGE)
        assert s.picture() == after


def test_close_is_a_reason(space):
    s, _ = closing(space, "PPPNNN", "N", "N", "6.7")
    s.give((3, 3), "random", back=True)
    assert s.picture() == "PPPPPP", "case 7 does not ask"
    s, _ = closing(space, "PPPNNN", "N", "P", "6.7")
    s.give((0, 3), "random", back=True)
    assert s.picture() == "PPPNNN"
    assert s.reasons("P", "N") == ["CLOSE_OP"]


# -- without memory -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("case", "faulted"), [(6, ""), (6, "N"), (6, "P"), (5, "P"), (4, "N"), (8, "N"), (7, "P")])
def test_a_merge_without_memory_is_not_made(space, case, faulted):
    """Each allocation fails once: either nothing changed but a split, or the merge was made; never something between.

    With (6, "N") this is what ``vma-merge-dup-anon-comment`` documents: P can not take over N's chain, and that C has
    none must not hide it.
    """
    before, line, odd, after = CASES[case]
    s = space()
    fail, seen = 0, set()
    while True:
        fail += 1
        s.p.munmap(BASE, 12 * PAGE)
        s.areas.clear()
        s.draw(before, {odd: "dontdump"}, faulted=faulted)
        fault = s.machine.kernel.page_alloc.fault = FaultInjection(fail_nth=fail)
        try:
            s.give(stars(line), "dontdump", back=True)
            told = 0
        except OSError as error:
            told = error.errno
        s.machine.kernel.page_alloc.fault = None
        s.machine.check()
        assert told in (0, errno.EAGAIN)
        if s.picture() != after:
            assert all(s.areas[letter].anon_vma is None for letter in before if letter not in (*faulted, "."))
        seen.add(s.picture())
        if not fault.failed:
            break
    assert fail > 1 and after in seen and len(seen) > 1
