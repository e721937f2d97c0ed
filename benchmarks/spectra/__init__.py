"""The benchmark of the spectra domain, run by `python -m benchmarks spectra`."""
