//! What is said of libtorch's own errors.

use crate::error::short;

/// What helps where it was NCCL that said something.
pub(super) const NCCL: &str = "NCCL_DEBUG=INFO makes NCCL say more; NCCL_SOCKET_IFNAME names the network it may use (one to begin with `eth` or \
    `ib`, not `docker` or `lo`), NCCL_IB_DISABLE=1 leaves InfiniBand out";

/// The first line of what libtorch said; NCCL's reason stands behind it.
pub(super) fn words(error: &tch::TchError) -> String {
    let text = match error {
        tch::TchError::Torch(text) => text,
        other => return short(other),
    };
    let mut rest = text
        .lines()
        .map(str::trim)
        .skip_while(|l| !l.starts_with("Last error"));
    let reason = rest.next().map(|first| {
        match first
            .trim_start_matches("Last error")
            .trim_start_matches(':')
            .trim()
        {
            "" => rest.next().unwrap_or_default(),
            same_line => same_line,
        }
    });
    match reason {
        Some(reason) if !reason.is_empty() => format!("{}; its last error: {reason}", short(text)),
        _ => short(text),
    }
}
