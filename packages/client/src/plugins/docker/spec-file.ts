/** How a daemon finds a plugin that listens on TCP: a file in its plugin folder. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Address } from "@libstorage/model";
import { removeDurably, writeDurably } from "../../host/durable-file.js";

export interface SpecOptions {
  /** `/etc/docker/plugins`. */
  readonly folder: string;
  readonly name: string;
  readonly address: Address & { readonly kind: "tcp" };
  /** What the daemon shows, and whom it trusts; absent when it shows nothing. */
  readonly daemon?: {
    readonly certFile: string;
    readonly keyFile: string;
    readonly caFile: string;
  };
}

/** A `.spec` file has nothing but an address, a `.json` file what the daemon must show and check. */
function contentOf({ name, address: { host, port }, daemon }: SpecOptions): {
  readonly end: string;
  readonly text: string;
} {
  const shown = host === "" ? "127.0.0.1" : host;
  const url = `https://${shown.includes(":") ? `[${shown}]` : shown}:${port}`;
  if (daemon === undefined) return { end: "spec", text: `${url}\n` };
  const { certFile, keyFile, caFile } = daemon;
  const tls = { InsecureSkipVerify: false, CAFile: caFile, CertFile: certFile, KeyFile: keyFile };
  const spec = { Name: name, Addr: url, TLSConfig: tls };
  return { end: "json", text: `${JSON.stringify(spec, null, 2)}\n` };
}

/** @returns what removes the file again, if it is still as it was written */
export async function writeSpec(options: SpecOptions): Promise<() => Promise<void>> {
  const { end, text } = contentOf(options);
  const file = join(options.folder, `${options.name}.${end}`);
  await writeDurably(file, text);
  return async () => {
    if ((await readFile(file, "utf8").catch(() => "")) === text) await removeDurably(file);
  };
}
