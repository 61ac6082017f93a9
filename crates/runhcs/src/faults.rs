//! Failures on purpose, so that tests can see every step undone. Only in builds with the feature
//! `fault-injection`; other builds hold nothing of it.

/// Fails if the environment's `RUNHCS_FAIL_AT` names this step.
#[cfg(feature = "fault-injection")]
pub fn check(step: &str) -> anyhow::Result<()> {
    if std::env::var_os("RUNHCS_FAIL_AT").is_some_and(|name| name == step) {
        anyhow::bail!("failure injected after step `{step}`");
    }
    Ok(())
}

/// Does nothing in this build.
#[cfg(not(feature = "fault-injection"))]
pub fn check(_step: &str) -> anyhow::Result<()> {
    Ok(())
}
