import { isIP } from "node:net";
import { isAbsolute } from "node:path";
import * as v from "valibot";

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

const absolutePath = v.pipe(
  v.string(),
  v.check((path) => isAbsolute(path), "must be an absolute path"),
  v.check((path) => !/[\0\n]/.test(path), "must not have a NUL or a line break"),
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
  encryptionKeyFile: v.optional(
    v.pipe(
      absolutePath,
      v.description(
        "The file with the passphrase of encrypted volumes, the driver's. What goes over the wire is the disk in clear: use `tls`.",
      ),
    ),
  ),
  folder: v.optional(
    v.pipe(
      absolutePath,
      v.description(
        "The folder for the sockets of the storage daemons. Its path must be short. Default `<lib>/nbd`.",
      ),
    ),
  ),
});
export type NbdConfig = v.InferOutput<typeof NbdConfig>;
