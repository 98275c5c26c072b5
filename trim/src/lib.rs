//! Gives free pages of the system's allocator back to the system.

/// Gives back what is free now. The allocator keeps the pages that others free between pieces that
/// stay, for good if the thread that took them has ended: a call after a phase that took much for a
/// moment is worth it, one now and then is not. Nothing happens where the system's allocator is not
/// glibc's.
pub fn give_back_free_pages() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it may be called by any thread at any time, and touches nothing but what is free.
    unsafe {
        libc::malloc_trim(0);
    }
}
