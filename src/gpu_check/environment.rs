//! What the other parts ran on.

use super::card;
use super::part::Check;
use crate::error::Result;
use crate::ffi::{check, cuda, nvml};
use crate::{cores, ffi};

pub(crate) fn run(check: &mut Check) -> Result<()> {
    let device = check.device;
    let mut fact = |name: &str, value: &dyn Fn() -> Result<String>| {
        check.row(name, |m| {
            m.set("value", value()?);
            Ok(())
        })
    };
    for (name, value) in ffi::program() {
        fact(&name.replace("program.", ""), &|| Ok(value.clone()))?;
    }
    fact("cores", &|| Ok(cores::allowed().to_string()))?;
    if !device.is_cuda() {
        fact("device", &|| Ok("CPU".into()))?;
        return Ok(());
    }
    fact("card", &|| Ok(card::names().join(", ")))?;
    fact("driver", &|| Ok(cuda::driver().unwrap_or("not told".into())))?;
    fact("CUDA", &|| {
        let (cuda, _) = check::cuda_versions()?;
        Ok(format!("{}.{}", cuda / 1000, cuda % 1000 / 10))
    })?;
    fact("cuDNN", &|| {
        let (_, cudnn) = check::cuda_versions()?;
        Ok(format!(
            "{}.{}.{}",
            cudnn / 10000,
            cudnn % 10000 / 100,
            cudnn % 100
        ))
    })?;
    fact("NCCL", &|| Ok(nvml::nccl().unwrap_or("not open".into())))?;
    fact("memory, GiB", &|| {
        let memory = check::memory(device)?;
        let gib = |n: i64| n as f64 / (1u64 << 30) as f64;
        Ok(memory.map_or(String::new(), |m| {
            format!("{:.1}, {:.1} free", gib(m.total), gib(m.free))
        }))
    })?;
    for name in ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"] {
        if let Ok(value) = std::env::var(name) {
            fact(name, &|| Ok(value.clone()))?;
        }
    }
    check.row("cuDNN's attention is off", |m| {
        m.must(!cuda::cudnn_attention(), || "libtorch may take it".into());
        Ok(())
    })?;
    check.row("NVRTC compiles", |m| {
        let compiled = cuda::nvrtc();
        m.must(compiled.is_ok(), || compiled.clone().err().unwrap_or_default());
        Ok(())
    })?;
    Ok(())
}
