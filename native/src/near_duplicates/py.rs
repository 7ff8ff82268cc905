//! Binding of [`super::core`].

use std::sync::Mutex;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::core::{Index, MAX_DISTANCE};
use crate::python::{extract_i64s, extract_texts, extract_u64s, with_lock};

/// Fingerprints of the last ``ttl_ms`` by event time, with exact recall within ``max_distance`` bits.
#[pyclass(frozen, module = "sentimesh._native")]
pub struct NearDuplicateIndex(Mutex<Index>);

#[pymethods]
impl NearDuplicateIndex {
    #[new]
    #[pyo3(signature = (max_distance = 3, ttl_ms = 3_600_000))]
    fn new(max_distance: i64, ttl_ms: i64) -> PyResult<Self> {
        let distance = u32::try_from(max_distance)
            .ok()
            .filter(|distance| *distance <= MAX_DISTANCE)
            .ok_or_else(|| {
                PyValueError::new_err(format!("max_distance is {max_distance}, not from 0 to {MAX_DISTANCE}"))
            })?;
        if ttl_ms < 0 {
            return Err(PyValueError::new_err(format!("ttl_ms is {ttl_ms}, which is negative")));
        }
        Ok(Self(Mutex::new(Index::new(distance, ttl_ms))))
    }

    /// Look up, then insert, each entry in order.
    fn check_and_insert(
        &self,
        py: Python<'_>,
        ids: &Bound<'_, PyAny>,
        fingerprints: &Bound<'_, PyAny>,
        timestamps_ms: &Bound<'_, PyAny>,
    ) -> PyResult<Vec<Option<(String, u64)>>> {
        let ids = extract_texts(ids, "ids")?;
        let fingerprints = extract_u64s(fingerprints, "fingerprints")?;
        let timestamps_ms = extract_i64s(timestamps_ms, "timestamps_ms")?;
        if ids.len() != fingerprints.len() || ids.len() != timestamps_ms.len() {
            return Err(PyValueError::new_err(format!(
                "{} ids, {} fingerprints and {} timestamps_ms: give one of each an entry",
                ids.len(),
                fingerprints.len(),
                timestamps_ms.len()
            )));
        }
        Ok(with_lock(py, &self.0, |index| {
            ids.iter()
                .zip(fingerprints)
                .zip(timestamps_ms)
                .map(|((id, fingerprint), timestamp_ms)| {
                    index
                        .check_and_insert(id, fingerprint, timestamp_ms)
                        .map(|(id, fingerprint)| (id.to_string(), fingerprint))
                })
                .collect()
        }))
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        with_lock(py, &self.0, |index| index.len())
    }
}
