//! What the processor this runs on can do.

pub mod py {
    use pyo3::prelude::*;

    /// Tell whether the processor multiplies and adds int8 in one instruction (x86: AVX512-VNNI or AVX-VNNI).
    #[pyfunction]
    pub fn has_vnni() -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            is_x86_feature_detected!("avx512vnni") || is_x86_feature_detected!("avxvnni")
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            false
        }
    }
}
