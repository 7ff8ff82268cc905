//! Binding of [`super::core`].

use pyo3::prelude::*;

use super::core::fingerprint;
use crate::python::extract_texts;

/// Return the 64-bit SimHash of each text's words (unsigned).
#[pyfunction]
pub fn simhash64(py: Python<'_>, texts: &Bound<'_, PyAny>) -> PyResult<Vec<u64>> {
    let texts = extract_texts(texts, "texts")?;
    Ok(py.detach(|| texts.iter().map(|text| fingerprint(text)).collect()))
}
