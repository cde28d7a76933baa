"""Everything that blocks, starts or ends: links, processes, threads, files."""
