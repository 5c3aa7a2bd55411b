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
  /** What the daemon shows, and whom it trusts. */
  readonly daemon: { readonly certFile: string; readonly keyFile: string; readonly caFile: string };
}

function textOf({ name, address: { host, port }, daemon }: SpecOptions): string {
  const authority = `${host.includes(":") ? `[${host}]` : host === "" ? "127.0.0.1" : host}:${port}`;
  const spec = {
    Name: name,
    Addr: `https://${authority}`,
    TLSConfig: {
      InsecureSkipVerify: false,
      CAFile: daemon.caFile,
      CertFile: daemon.certFile,
      KeyFile: daemon.keyFile,
    },
  };
  return `${JSON.stringify(spec, null, 2)}\n`;
}

/**
 * Writes `NAME.json`. The daemon's other form, a `.spec` file with nothing but an address, has no place
 * for the certificate that it must show here.
 * @returns what removes it again, if it is still as it was written
 */
export async function writeSpec(options: SpecOptions): Promise<() => Promise<void>> {
  const file = join(options.folder, `${options.name}.json`);
  const text = textOf(options);
  await writeDurably(file, text);
  return async () => {
    if ((await readFile(file, "utf8").catch(() => "")) === text) await removeDurably(file);
  };
}
