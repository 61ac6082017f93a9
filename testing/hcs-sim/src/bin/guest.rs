//! What a Linux container's processes are under the stand-in: one command of the guest.

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let code = hcs_sim::guest::run(&arguments);
    std::process::exit(i32::from_ne_bytes(code.to_ne_bytes()));
}
