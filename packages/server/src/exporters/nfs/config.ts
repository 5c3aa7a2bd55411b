import { BlockList, isIP } from "node:net";
import { isAbsolute } from "node:path";
import * as v from "valibot";
import { addSubnet } from "./subnets.js";

const Subnet = v.pipe(
  v.string(),
  v.check(
    (text) => addSubnet(new BlockList(), text),
    "must be an address or a subnet such as 10.1.0.0/16",
  ),
);

const Id = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(4_294_967_294));

/** What may stand in a line of exports(5) and in a path of mount(8) without quoting. */
const PLAIN_PATH = /^(?:\/[\w.+-]+)+$/;

/** The keys of the NFS exporter. */
export const NfsConfig = v.strictObject({
  mode: v.optional(
    v.pipe(
      v.picklist(["auto", "kernel", "ganesha"]),
      v.description(
        "Who serves: the kernel's NFS server, which runs already, or an nfs-ganesha that this server starts. `auto`: the kernel's where its tool `exportfs` is installed, else nfs-ganesha.",
      ),
    ),
    "auto",
  ),
  server: v.optional(
    v.pipe(
      v.string(),
      v.description(
        "Under which address or name other hosts find this one. Default: its address in the subnet of the host that asks.",
      ),
      v.check(
        (text) => isIP(text) !== 0 || /^[\da-z](?:[\da-z.-]{0,251}[\da-z])?$/i.test(text),
        "must be an address or a host name",
      ),
    ),
  ),
  networks: v.optional(
    v.pipe(
      v.array(Subnet),
      v.description(
        "Volumes are exported only to those addresses of a host that are in these subnets. Default: in a subnet that this server has an interface in; to all of them when none is.",
      ),
    ),
  ),
  readOnly: v.optional(
    v.pipe(v.array(Subnet), v.description("Hosts with an address in these subnets can only read.")),
    [],
  ),
  squash: v.optional(
    v.pipe(
      v.picklist(["none", "root", "all"]),
      v.description(
        "Which users of a host become the anonymous one: `none`, `root`, or `all`. A host that shall set owners, as container runtimes do, needs `none`.",
      ),
    ),
    "none",
  ),
  anonUid: v.optional(v.pipe(Id, v.description("The anonymous user.")), 65_534),
  anonGid: v.optional(v.pipe(Id, v.description("The anonymous group.")), 65_534),
  security: v.optional(
    v.pipe(
      v.picklist(["sys", "krb5", "krb5i", "krb5p"]),
      v.description(
        "`sys`: a host is known by its address alone; `krb5` and on: by Kerberos, which has to be set up on both ends.",
      ),
    ),
    "sys",
  ),
  subtreeCheck: v.optional(
    v.pipe(
      v.boolean(),
      v.description(
        "Kernel only: each access is checked to be in its volume, against hosts that forge handles. Renaming a file between folders then makes those who have it open fail.",
      ),
    ),
    false,
  ),
  version: v.optional(
    v.pipe(
      v.picklist(["4.2", "4.1", "4.0", "3"]),
      v.description("The version that hosts are told to use."),
    ),
    "4.2",
  ),
  options: v.optional(
    v.pipe(
      v.string(),
      v.description("Further options that hosts are told to mount with, as in nfs(5)."),
      v.regex(/^[\w.:=/-]+(?:,[\w.:=/-]+)*$/, "must be options with commas between them"),
    ),
    "hard",
  ),
  folder: v.optional(
    v.pipe(
      v.string(),
      v.description(
        "Where exported volumes are mounted on this server, below the service's name; every user must be able to pass through it.",
      ),
      v.check((path) => isAbsolute(path) && PLAIN_PATH.test(path), "must be a plain absolute path"),
      v.check((path) => !/\/\.{1,2}(?:\/|$)/.test(path), "must not have . or .. in it"),
    ),
    "/srv/libstorage",
  ),
  port: v.optional(
    v.pipe(
      v.number(),
      v.integer(),
      v.minValue(1),
      v.maxValue(65_535),
      v.description("nfs-ganesha only: where it listens; each service needs a port of its own."),
    ),
    2049,
  ),
  bind: v.optional(
    v.pipe(
      v.string(),
      v.ip("must be an address"),
      v.description("nfs-ganesha only: the address on which it listens. Default: all."),
    ),
  ),
});
export type NfsConfig = v.InferOutput<typeof NfsConfig>;
