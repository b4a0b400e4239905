//! What the endpoint allocates in the monitor's memory: copies for one call, freed after it, and 256 bytes for good.
//!
//! Invariant: copies are freed when the call is done, all of them and the first one first. What was allocated behind it is
//! free with it, so that a place to go on from is all there is to know.

use core::arch::wasm32::{memory_grow, memory_size};

const PAGE_LEN: usize = 0x1_0000;

// SAFETY: the linker makes it; nothing but its address is used.
extern "C" {
    /// Where the linker ends what it has placed.
    static __heap_base: u8;
}

/// The first free place; 0 before the first call.
static mut NEXT: usize = 0;

/// Gives `len` bytes, or a null pointer.
///
/// # Safety
/// There is one thread.
#[no_mangle]
pub unsafe extern "C" fn malloc(len: usize) -> *mut u8 {
    if NEXT == 0 {
        NEXT = &__heap_base as *const u8 as usize;
    }
    let place = (NEXT + 15) & !15;
    let end = match place.checked_add(len) {
        Some(end) => end,
        None => return core::ptr::null_mut(),
    };
    let pages = (end + PAGE_LEN - 1) / PAGE_LEN;
    let missing = pages.saturating_sub(memory_size(0));
    if missing > 0 && memory_grow(0, missing) == usize::MAX {
        return core::ptr::null_mut();
    }
    NEXT = end;
    place as *mut u8
}

/// Takes bytes back, and what was allocated after them.
///
/// # Safety
/// There is one thread, and `malloc` gave the place.
#[no_mangle]
pub unsafe extern "C" fn free(place: *mut u8) {
    if !place.is_null() && (place as usize) < NEXT {
        NEXT = place as usize;
    }
}
