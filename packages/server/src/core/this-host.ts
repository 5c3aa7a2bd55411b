/** Whether an instance is the host that this server runs on. */
import { readFileSync } from "node:fs";
import { hostname } from "node:os";
import { hostFactsOf } from "@libstorage/model";
import type { InstanceID } from "@libstorage/model";

let bootID: string | undefined;

function ownBootID(): string {
  bootID ??= readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  return bootID;
}

/**
 * By the kernel's boot id, which containers of a host share and no other host has, however it is named.
 * A client that does not tell it goes by its name.
 */
export function isThisHost({ id, metadata }: InstanceID): boolean {
  const told = hostFactsOf(metadata)?.bootID;
  return told === undefined ? id.toLowerCase() === hostname().toLowerCase() : told === ownBootID();
}
