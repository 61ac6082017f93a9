//! Windows: the Host Compute Service. Its parts follow.
