# From the Prometheus text format to one JSON object.
$1 == "node_time_seconds" { time = $2 }
$1 == "node_boot_time_seconds" { boot = $2 }
$1 == "node_load1" { load = $2 }
$1 == "node_memory_MemTotal_bytes" { total = $2 }
$1 == "node_memory_MemAvailable_bytes" { available = $2 }
$1 ~ /^node_cpu_seconds_total.*mode="idle"/ { idle += $2; cpus++ }
END {
	printf "{\"time\": %.0f, \"uptime\": %.0f, \"load\": %.2f, \"cpus\": %d, \"cpu_idle_seconds\": %.0f, ",
		time, time - boot, load, cpus, idle
	printf "\"memory_total\": %.0f, \"memory_available\": %.0f}\n", total, available
}
