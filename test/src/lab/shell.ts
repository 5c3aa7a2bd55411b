/** Commands of the suites inside a machine. */
import { execFileSync } from "node:child_process";

/**
 * Runs a script with bash, which ends at the first command that fails.
 * @returns its standard output without the last line break
 */
export function sh(script: string, limitMs = 60_000): string {
  return execFileSync("bash", ["-euo", "pipefail", "-c", script], {
    encoding: "utf8",
    timeout: limitMs,
    killSignal: "SIGKILL",
    stdio: ["ignore", "pipe", "pipe"],
  }).replace(/\n$/, "");
}
