/** What this host tells a service whose volumes reach it through an exporter. */
import { readFile } from "node:fs/promises";
import { networkInterfaces } from "node:os";
import type { HostFacts } from "@libstorage/model";
import { initiatorName } from "./initiator-name.js";

const MAX_ADDRESSES = 64;

async function textOf(path: string): Promise<string> {
  return readFile(path, "utf8").catch(() => "");
}

/** Those that other hosts can reach, in a fixed order. */
function ownAddresses(): string[] {
  const all = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? []);
  const outside = all.filter(
    ({ internal, address }) => !internal && !address.toLowerCase().startsWith("fe80:"),
  );
  return [...new Set(outside.map(({ address }) => address))].toSorted().slice(0, MAX_ADDRESSES);
}

/** Without what this host does not have. */
export async function readHostFacts(hostName: string): Promise<HostFacts> {
  const bootID = (await textOf("/proc/sys/kernel/random/boot_id")).trim();
  const initiator = await initiatorName();
  return {
    hostName,
    addresses: ownAddresses(),
    ...(bootID !== "" && { bootID }),
    ...(initiator !== undefined && { initiatorName: initiator }),
  };
}
