"""Where rows live: tables, migrations, and the threads that read and write them."""
