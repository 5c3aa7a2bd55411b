import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { it } from "node:test";
import { isKilled } from "./holders.js";

it("a process for which SIGKILL waits is ending, and no other", () => {
  const own = readFileSync("/proc/self/status", "utf8");
  assert.match(own, /^SigPnd:\t0000000000000000$/m, "the kernel writes it so");
  assert.match(own, /^ShdPnd:\t/m);
  assert.ok(!isKilled(own));
  const waiting = (which: string, signals: string): string =>
    own.replace(new RegExp(`^(${which}:\t).*$`, "m"), `$1${signals}`);
  // SIGKILL is the ninth: bit 8.
  assert.ok(isKilled(waiting("SigPnd", "0000000000000100")));
  assert.ok(isKilled(waiting("ShdPnd", "0000000000004302")));
  // SIGTERM, SIGUSR1 and SIGUSR2; and SIGKILL among those that are blocked.
  assert.ok(!isKilled(waiting("ShdPnd", "0000000000004a00")));
  assert.ok(!isKilled(waiting("SigBlk", "0000000000000100")));
});
