//! x
#![allow(dead_code)]
mod vsock;
fn main() {}
