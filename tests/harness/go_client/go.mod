module servicelink.test/go_client

go 1.24
