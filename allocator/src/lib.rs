//! The allocator of the binaries: mimalloc, as a simulation wants it.
//!
//! A simulation allocates and frees millions of small objects a second, and walks through hundreds of megabytes of them
//! in no order. Two things make that faster than mimalloc's own defaults:
//! - What was freed is kept, not given back to the system: pages that are given back and fetched again are small ones
//!   from then on, in the midst of large ones, and every look into them may miss the processor's table of pages.
//! - Up to a word, which is what most types ask for, mimalloc aligns anyway, and need not be asked to.
//!
//! This is the one crate with unsafe code: each block only hands its caller's promise on.

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::{c_int, c_void};

use libmimalloc_sys as mimalloc;

/// mimalloc, for `#[global_allocator]`.
pub struct Allocator;

/// Sizes are rounded up to multiples of so many bytes at least, and every block begins at such a multiple.
const WORD: usize = 8;
/// `mi_option_purge_delay` of mimalloc 2, in milliseconds; below zero: never.
const PURGE_DELAY: c_int = 15;

/// From now on memory that was freed stays with the process, for what it will allocate. For programs that run and end;
/// to be called before there is a second thread.
pub fn keep_what_is_freed() {
    // SAFETY: nobody reads the option meanwhile, as the caller is told; it exists, as a test sees.
    unsafe { mimalloc::mi_option_set(PURGE_DELAY, -1) }
}

// SAFETY: mimalloc answers blocks of at least the size and alignment that were asked for, or null, and takes back what
// it has answered, from any thread. It does not unwind.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let block = if layout.align() <= WORD {
            // SAFETY: any size may be asked for.
            unsafe { mimalloc::mi_malloc(layout.size()) }
        } else {
            // SAFETY: the alignment is a power of two, as `Layout` promises.
            unsafe { mimalloc::mi_malloc_aligned(layout.size(), layout.align()) }
        };
        block.cast()
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let block = if layout.align() <= WORD {
            // SAFETY: any size may be asked for.
            unsafe { mimalloc::mi_zalloc(layout.size()) }
        } else {
            // SAFETY: the alignment is a power of two, as `Layout` promises.
            unsafe { mimalloc::mi_zalloc_aligned(layout.size(), layout.align()) }
        };
        block.cast()
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let block = block.cast::<c_void>();
        let moved = if layout.align() <= WORD {
            // SAFETY: the block is one of mimalloc's, as the caller promises.
            unsafe { mimalloc::mi_realloc(block, size) }
        } else {
            // SAFETY: as above, and the alignment is a power of two.
            unsafe { mimalloc::mi_realloc_aligned(block, size, layout.align()) }
        };
        moved.cast()
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, _layout: Layout) {
        // SAFETY: the block is one of mimalloc's, as the caller promises.
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
                // SAFETY: the layouts have a size, blocks are read and written within it, and freed once.
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
