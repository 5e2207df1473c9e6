//! jemalloc with its configuration built in, because it reads it before `main`.
//!
//! Without the background thread an idle tier never gives freed pages back; the decay time bounds
//! how long a burst stays in the resident size.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// A thin pointer to a text that ends with NUL, which is what C's `const char *malloc_conf` is.
#[expect(unsafe_code, reason = "jemalloc looks its configuration up under this symbol")]
#[unsafe(export_name = "_rjem_malloc_conf")]
static MALLOC_CONF: &[u8; 43] = b"background_thread:true,dirty_decay_ms:1000\0";
