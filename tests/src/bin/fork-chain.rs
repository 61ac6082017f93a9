//! Forks and ends, and so does its child, and so on: by the time that somebody knows its pid it is
//! another process.

/// It ends some time, even if nobody manages to kill it.
const LINKS: u32 = 400_000;

fn main() {
    for _ in 0..LINKS {
        // SAFETY: there is one thread, and the child goes on as its parent would have.
        match unsafe { libc::fork() } {
            0 => {}
            // No more processes are allowed at the moment.
            -1 => std::thread::yield_now(),
            // SAFETY: ends the process, at once.
            _ => unsafe { libc::_exit(0) },
        }
    }
}
