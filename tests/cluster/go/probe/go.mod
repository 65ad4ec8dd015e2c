module tidegate.test/probe

go 1.26.0
