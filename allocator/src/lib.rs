//! The allocator of the binaries: mimalloc, configured for simulations.
//!
//! A simulation allocates and frees millions of small objects a second, and accesses hundreds of megabytes of them in
//! random order. Two settings make that faster than mimalloc's defaults:
//! - Freed memory is kept and not returned to the system: huge pages that are returned and allocated again come back as
//!   small pages, and every access to them may miss the TLB.
//! - mimalloc aligns blocks to a word anyway, which is enough for most types, so no alignment is requested for them.
//!
//! This is the only crate with unsafe code: each unsafe block only forwards its caller's guarantee.

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::{c_int, c_void};

use libmimalloc_sys as mimalloc;

/// mimalloc as a `#[global_allocator]`.
pub struct Allocator;

/// Sizes are rounded up to a multiple of this many bytes, and every block is aligned to it.
const WORD: usize = 8;
/// `mi_option_purge_delay` of mimalloc 2, in milliseconds; negative means never.
const PURGE_DELAY: c_int = 15;

/// From now on, freed memory stays with the process for later allocations. For programs that run and exit; must be
/// called before a second thread starts.
pub fn keep_what_is_freed() {
    // SAFETY: no other thread reads the option meanwhile, as the documentation requires; a test checks that the option
    // exists.
    unsafe { mimalloc::mi_option_set(PURGE_DELAY, -1) }
}

// SAFETY: mimalloc returns blocks of at least the requested size and alignment, or null, and frees the blocks that it
// has returned, from any thread. It does not unwind.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let block = if layout.align() <= WORD {
            // SAFETY: any size may be requested.
            unsafe { mimalloc::mi_malloc(layout.size()) }
        } else {
            // SAFETY: `Layout` guarantees that the alignment is a power of two.
            unsafe { mimalloc::mi_malloc_aligned(layout.size(), layout.align()) }
        };
        block.cast()
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let block = if layout.align() <= WORD {
            // SAFETY: any size may be requested.
            unsafe { mimalloc::mi_zalloc(layout.size()) }
        } else {
            // SAFETY: `Layout` guarantees that the alignment is a power of two.
            unsafe { mimalloc::mi_zalloc_aligned(layout.size(), layout.align()) }
        };
        block.cast()
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let block = block.cast::<c_void>();
        let moved = if layout.align() <= WORD {
            // SAFETY: the caller guarantees that the block was allocated by mimalloc.
            unsafe { mimalloc::mi_realloc(block, size) }
        } else {
            // SAFETY: as above, and the alignment is a power of two.
            unsafe { mimalloc::mi_realloc_aligned(block, size, layout.align()) }
        };
        moved.cast()
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, _layout: Layout) {
        // SAFETY: the caller guarantees that the block was allocated by mimalloc.
        unsafe { mimalloc::mi_free(block.cast()) }
    }
}

#[cfg(test)]
mod tests {
    use std::alloc::{GlobalAlloc, Layout};

    use super::{Allocator, PURGE_DELAY, keep_what_is_freed, mimalloc};

    #[test]
    fn the_option_is_that_of_the_purge() {
        // SAFETY: options may be read at any time.
        let delay = || unsafe { mimalloc::mi_option_get(PURGE_DELAY) };
        assert_eq!(delay(), 10, "mimalloc's own default, which no other option has");
        keep_what_is_freed();
        assert_eq!(delay(), -1);
    }

    #[test]
    fn blocks_are_aligned_zeroed_and_keep_what_is_in_them() {
        for align in [1, 2, 4, 8, 16, 32, 64, 4096] {
            for size in [1, 7, 8, 9, 24, 40, 100, 1000, 70_000] {
                let layout = Layout::from_size_align(size, align).unwrap();
                // SAFETY: the layouts have a nonzero size; blocks are read and written within it and freed once.
                unsafe {
                    let block = Allocator.alloc_zeroed(layout);
                    assert_eq!(block as usize % align, 0, "{layout:?}");
                    assert!((0..size).all(|i| *block.add(i) == 0), "{layout:?}");
                    (0..size).for_each(|i| *block.add(i) = i as u8);
                    let block = Allocator.realloc(block, layout, 2 * size);
                    assert_eq!(block as usize % align, 0, "{layout:?}");
                    assert!((0..size).all(|i| *block.add(i) == i as u8), "{layout:?}");
                    Allocator.dealloc(block, Layout::from_size_align(2 * size, align).unwrap());
                    let block = Allocator.alloc(layout);
                    assert_eq!(block as usize % align, 0, "{layout:?}");
                    Allocator.dealloc(block, layout);
                }
            }
        }
    }
}
