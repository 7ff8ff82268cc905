//! Binding of [`super::core`].

use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;
use std::time::Duration;

use pyo3::exceptions::{PyConnectionError, PyTimeoutError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::core::{Failure, Reader, connect};
use crate::python::with_lock;

/// A day: none of our waits is longer, and a socket takes it.
const MAX_TIMEOUT_SECONDS: f64 = 86_400.0;

/// Reads what a JetStream consumer pushes to an inbox, over a connection of its own.
#[pyclass(frozen, module = "sentimesh._native")]
pub struct LogReader {
    reader: Mutex<Reader<TcpStream>>,
    /// The same connection, to be closed while a read waits.
    connection: TcpStream,
    /// The server's greeting, a JSON object.
    #[pyo3(get)]
    info: String,
}

#[pymethods]
impl LogReader {
    #[new]
    fn new(py: Python<'_>, host: &str, port: u16, timeout_seconds: f64) -> PyResult<Self> {
        if !(0.001..=MAX_TIMEOUT_SECONDS).contains(&timeout_seconds) {
            return Err(PyValueError::new_err(format!(
                "timeout_seconds is {timeout_seconds}, not from 0.001 to {MAX_TIMEOUT_SECONDS}"
            )));
        }
        let timeout = Duration::from_secs_f64(timeout_seconds);
        py.detach(|| {
            let stream = connect(host, port, timeout)?;
            let connection = stream.try_clone()?;
            let mut reader = Reader::new(stream, timeout);
            let info = reader.greeting()?;
            Ok(Self {
                reader: Mutex::new(reader),
                connection,
                info,
            })
        })
        .map_err(to_python)
    }

    /// Introduce itself and subscribe.
    fn subscribe(&self, py: Python<'_>, connect_json: &str, inbox: &str) -> PyResult<()> {
        with_lock(py, &self.reader, |reader| reader.subscribe(connect_json, inbox)).map_err(to_python)
    }

    /// Return the next messages as (subject, sequence, data).
    fn read<'py>(
        &self,
        py: Python<'py>,
        max_messages: usize,
        through_sequence: u64,
    ) -> PyResult<Vec<(String, u64, Bound<'py, PyBytes>)>> {
        if max_messages == 0 {
            return Err(PyValueError::new_err("max_messages is 0: no messages mean the end"));
        }
        let messages =
            with_lock(py, &self.reader, |reader| reader.read(max_messages, through_sequence)).map_err(to_python)?;
        Ok(messages
            .into_iter()
            .map(|message| (message.subject, message.sequence, PyBytes::new(py, &message.data)))
            .collect())
    }

    /// Close the connection.
    fn close(&self) {
        // It fails only when the other side has closed it already.
        let _ = self.connection.shutdown(Shutdown::Both);
    }
}

fn to_python(failure: Failure) -> PyErr {
    let text = failure.to_string();
    match failure {
        Failure::Argument(_) => PyValueError::new_err(text),
        Failure::TimedOut => PyTimeoutError::new_err(text),
        _ => PyConnectionError::new_err(text),
    }
}
