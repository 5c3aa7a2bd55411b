import { isIP } from "node:net";
import * as v from "valibot";
import { DAEMON_KEYS, absolutePath } from "../qemu-storage-daemon/config.js";

export interface Listen {
  readonly host: string;
  readonly port: number;
}

const FORM = /^(?:\[([^\]\s]+)\]|([^:\s]+)):(\d{1,5})$/;

const listen = v.pipe(
  v.string(),
  v.rawTransform<string, Listen>(({ dataset, addIssue, NEVER }) => {
    const [, six, four, digits] = FORM.exec(dataset.value) ?? [];
    const host = six ?? four ?? "";
    const port = Number(digits);
    if (isIP(host) === (six === undefined ? 4 : 6) && port <= 65_535) return { host, port };
    addIssue({
      message: "must be an address with a port, such as 10.0.0.1:10809 or [fd00::1]:10809",
    });
    return NEVER;
  }),
);

/** The keys of the nbd exporter. */
export const NbdConfig = v.strictObject({
  listen: v.optional(
    v.pipe(
      listen,
      v.description(
        "Where NBD is served: an address of this host and a port. Any other than loopback needs `tls`, or `insecure`.",
      ),
    ),
    "127.0.0.1:10809",
  ),
  address: v.optional(
    v.pipe(
      listen,
      v.description("What holders are told to connect to, when that is not what `listen` says."),
    ),
  ),
  tls: v.optional(
    v.pipe(
      v.strictObject({
        certFile: v.pipe(absolutePath, v.description("The server's certificate (PEM).")),
        keyFile: v.pipe(absolutePath, v.description("Its key (PEM).")),
        trustedCertsFile: v.pipe(
          absolutePath,
          v.description("The CA whose client certificates are let in (PEM)."),
        ),
      }),
      v.description(
        "TLS with client certificates, begun within NBD (STARTTLS). A holder gets its own volumes only: its certificate has to name it, as common name or DNS name.",
      ),
    ),
  ),
  insecure: v.optional(
    v.pipe(
      v.boolean(),
      v.description(
        "Whether NBD is served without TLS on an address that is not loopback. Holders are then told apart by their addresses alone, and everybody on the way reads along.",
      ),
    ),
    false,
  ),
  pskFile: v.optional(
    v.pipe(
      absolutePath,
      v.description(
        "Pre-shared keys for TLS, a line `IDENTITY:HEX` each. With `tls` a client may come either way; who has a key is known by its identity.",
      ),
    ),
  ),
  writethrough: v.optional(
    v.pipe(
      v.boolean(),
      v.description(
        "Whether hosts that have attached are told of a write only when it is durable. Default: for qcow2 images, of which a daemon that is killed loses what was not flushed: a host that then connects again would have its next flush answered all the same.",
      ),
    ),
  ),
  folder: v.optional(
    v.pipe(
      absolutePath,
      v.description(
        "The folder for sockets of exports over `unix`. Its path must be short. Default `<lib>/nbd`.",
      ),
    ),
  ),
  ...DAEMON_KEYS,
});
export type NbdConfig = v.InferOutput<typeof NbdConfig>;
