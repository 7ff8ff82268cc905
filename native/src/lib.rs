//! `sentimesh._native`: the batch work of sentimesh. This file only registers what the domain modules bind.

pub mod log;
pub mod near_duplicates;
pub mod processor;
pub mod python;
pub mod simhash;
pub mod symbols;
pub mod windows;

/// The extension module; `sentimesh/_native.pyi` is its documentation.
#[pyo3::pymodule]
mod _native {
    #[pymodule_export]
    use crate::log::py::LogReader;
    #[pymodule_export]
    use crate::near_duplicates::py::{NearDuplicateBatch, NearDuplicateReads, NearDuplicateTable};
    #[pymodule_export]
    use crate::processor::py::has_vnni;
    #[pymodule_export]
    use crate::simhash::py::simhash64;
    #[pymodule_export]
    use crate::symbols::py::SymbolExtractor;
    #[pymodule_export]
    use crate::windows::py::{BatchResult, SlideCount, WindowStats, WindowStore};
}
