import { cannotMount } from "../../client/host-fixture.js";
import { csiSuite } from "./suite.js";

csiSuite({
  name: "vfs",
  driver: "vfs",
  service: "vfs",
  isBlock: false,
  noMounts: cannotMount(),
  skip: false,
  configuration: () => "",
});
