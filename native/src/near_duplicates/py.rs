//! Binding of [`super::table`] and [`super::wire`].

use std::sync::Mutex;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::blocks::MAX_DISTANCE;
use super::post::Post;
use super::table::{Batch, Table};
use super::wire::Reads;
use crate::python::{extract_i64s, extract_messages, extract_texts, extract_u64s, with_lock};

/// Posts that are asked about together.
#[pyclass(frozen, module = "sentimesh._native")]
pub struct NearDuplicateBatch {
    batch: Batch,
    writes: Vec<u8>,
}

#[pymethods]
impl NearDuplicateBatch {
    /// What the script in Redis is told to write; empty when all answers are known.
    #[getter]
    fn writes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.writes)
    }

    /// Number of posts that are written.
    fn __len__(&self) -> usize {
        self.batch.added.len()
    }
}

/// What is read for a batch.
#[pyclass(frozen, module = "sentimesh._native")]
pub struct NearDuplicateReads(Reads);

#[pymethods]
impl NearDuplicateReads {
    /// What the script in Redis is told to return.
    #[getter]
    fn request<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.request())
    }
}

/// Fingerprints of the last ``ttl_ms`` by event time, with exact recall within ``max_distance`` bits.
#[pyclass(frozen, module = "sentimesh._native")]
pub struct NearDuplicateTable(Mutex<Table>);

#[pymethods]
impl NearDuplicateTable {
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
        Ok(Self(Mutex::new(Table::new(distance, ttl_ms))))
    }

    /// Put a batch together.
    fn batch(
        &self,
        py: Python<'_>,
        ids: &Bound<'_, PyAny>,
        fingerprints: &Bound<'_, PyAny>,
        sequences: &Bound<'_, PyAny>,
        timestamps_ms: &Bound<'_, PyAny>,
    ) -> PyResult<NearDuplicateBatch> {
        let ids = extract_texts(ids, "ids")?;
        let fingerprints = extract_u64s(fingerprints, "fingerprints")?;
        let sequences = extract_i64s(sequences, "sequences")?;
        let timestamps_ms = extract_i64s(timestamps_ms, "timestamps_ms")?;
        let lengths = [fingerprints.len(), sequences.len(), timestamps_ms.len()];
        if lengths.iter().any(|&length| length != ids.len()) {
            return Err(PyValueError::new_err(format!(
                "{} ids, {} fingerprints, {} sequences and {} timestamps_ms: give one of each a post",
                ids.len(),
                lengths[0],
                lengths[1],
                lengths[2]
            )));
        }
        Ok(with_lock(py, &self.0, |table| {
            let numbers = fingerprints.into_iter().zip(sequences).zip(timestamps_ms);
            let posts = ids.iter().zip(numbers);
            let posts = posts.map(|(id, ((fingerprint, sequence), time))| Post::new(id, fingerprint, sequence, time));
            let batch = table.batch(posts.collect());
            let writes = table.writes(&batch);
            NearDuplicateBatch { batch, writes }
        }))
    }

    /// Say what is to be read for a batch.
    fn reads(&self, py: Python<'_>, batch: &Bound<'_, NearDuplicateBatch>) -> NearDuplicateReads {
        let batch = &batch.get().batch;
        NearDuplicateReads(with_lock(py, &self.0, |table| table.reads(batch)))
    }

    /// Take in what was read.
    fn read(&self, py: Python<'_>, reads: &Bound<'_, NearDuplicateReads>, reply: &Bound<'_, PyAny>) -> PyResult<()> {
        let reply = extract_messages(reply, "reply")?;
        let reads = &reads.get().0;
        if with_lock(py, &self.0, |table| table.read(reads, &reply)) {
            return Ok(());
        }
        Err(PyValueError::new_err(
            "the reply does not have the buckets that were asked for",
        ))
    }

    /// Hold a batch's posts as if this process were the only one.
    fn remember(&self, py: Python<'_>, batch: &Bound<'_, NearDuplicateBatch>) {
        let batch = &batch.get().batch;
        with_lock(py, &self.0, |table| table.remember(batch));
    }

    /// Look a batch's posts up.
    fn answers(&self, py: Python<'_>, batch: &Bound<'_, NearDuplicateBatch>) -> Vec<Option<u64>> {
        let batch = &batch.get().batch;
        with_lock(py, &self.0, |table| table.answers(batch))
    }

    /// Read and write everything again.
    fn forget(&self, py: Python<'_>) {
        with_lock(py, &self.0, Table::forget);
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        with_lock(py, &self.0, |table| table.len())
    }
}
