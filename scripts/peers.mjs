/**
 * Installs the real programs that the tests compare with (Debian packages), where that is possible: as root, on a
 * machine with apt. Anything else is reported and left alone; the tests that need a missing one are then skipped by name.
 * Costs nothing but a look at PATH when they are all there. Run by scripts/test.mjs, or alone: node scripts/peers.mjs.
 *
 * What a test's guest is made of (its kernel, its shell) is unpacked into this checkout's cache and never installed: a
 * kernel that is installed is the one that the machine itself boots next time.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'

/** Program → Debian package. Names that begin with `guest/` are files of the guest's folder. */
export const PEERS = /** @type {const} */ ({
  'qemu-img': 'qemu-utils',
  'qemu-io': 'qemu-utils',
  'qemu-nbd': 'qemu-utils',
  'qemu-storage-daemon': 'qemu-system-common',
  'qemu-system-x86_64': 'qemu-system-x86',
  fio: 'fio',
  nbdkit: 'nbdkit',
  nbdinfo: 'libnbd-bin',
  nbdcopy: 'libnbd-bin',
  nbdsh: 'python3-libnbd',
  'nbd-client': 'nbd-client',
  e2fsck: 'e2fsprogs',
  mke2fs: 'e2fsprogs',
  debugfs: 'e2fsprogs',
  blkparse: 'blktrace',
  strace: 'strace',
  openssl: 'openssl',
  'guest/vmlinuz': 'linux-image-cloud-amd64',
  'guest/busybox': 'busybox-static',
})

const GUEST = 'guest/'
const GUEST_FOLDER = resolve(import.meta.dirname, '../node_modules/.cache/slicelog-guest')
/** What a guest with a virtio disk needs; ext4 is built into that kernel. */
const KERNEL_FILES = [
  './boot/vmlinuz-*',
  './lib/modules/*/kernel/drivers/virtio/virtio*.ko',
  './lib/modules/*/kernel/drivers/block/virtio_blk.ko',
]

/**
 * The program's path, or undefined where it is missing. Costs one `command -v` per call.
 * @param {string} program
 * @returns {string | undefined}
 */
export function locate(program) {
  if (program.startsWith(GUEST)) {
    const file = join(GUEST_FOLDER, program.slice(GUEST.length))
    return existsSync(file) ? file : undefined
  }
  try {
    const path = execFileSync('/bin/sh', ['-c', 'command -v "$1"', 'sh', program], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
      env: { ...process.env, PATH: `${process.env.PATH ?? ''}:/usr/sbin:/sbin` },
    }).trim()
    return path === '' ? undefined : path
  } catch {
    return undefined
  }
}

/** Programs that are not on this machine. */
export function missingPeers() {
  return Object.keys(PEERS).filter((program) => locate(program) === undefined)
}

/**
 * Tries to install what is missing. Never throws: a machine without the network still runs every other test.
 * @returns {string[]} what is still missing
 */
export function installPeers(log = (/** @type {string} */ line) => process.stderr.write(`${line}\n`)) {
  const missing = missingPeers()
  if (missing.length === 0) return []
  const packagesOf = (/** @type {string[]} */ programs) => [
    ...new Set(programs.map((program) => PEERS[/** @type {keyof typeof PEERS} */ (program)])),
  ]
  const install = packagesOf(missing.filter((program) => !program.startsWith(GUEST)))
  const unpack = packagesOf(missing.filter((program) => program.startsWith(GUEST)))
  if (process.getuid?.() !== 0 || locate('apt-get') === undefined) {
    const how = [
      install.length === 0 ? '' : `apt-get install ${install.join(' ')}`,
      unpack.length === 0 ? '' : `as root: node scripts/peers.mjs (it unpacks ${unpack.join(', ')})`,
    ]
    log(`peers: missing ${missing.join(', ')}; to run their tests: ${how.filter(Boolean).join('; ')}`)
    return missing
  }
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  const aptGet = (/** @type {string[]} */ ...words) =>
    execFileSync('apt-get', words, { stdio: ['ignore', 'ignore', 'pipe'], timeout: 300_000, env })
  try {
    aptGet('update', '-q')
    if (install.length > 0) {
      log(`peers: installing ${install.join(', ')}`)
      aptGet('install', '-y', '-q', '--no-install-recommends', ...install)
    }
    if (unpack.length > 0) {
      log(`peers: unpacking ${unpack.join(', ')} into ${GUEST_FOLDER}`)
      unpackGuest()
    }
  } catch (error) {
    log(`peers: could not install: ${error instanceof Error ? error.message.split('\n')[0] : String(error)}`)
  }
  const still = missingPeers()
  if (still.length > 0) log(`peers: still missing ${still.join(', ')}; their tests are skipped by name`)
  return still
}

/** Makes the guest's folder, in one step at the end: `vmlinuz`, `busybox`, `modules/`. About 28 MB to fetch, 17 MB to keep. */
function unpackGuest() {
  // Its machine is an x86-64 one, and apt gives the packages of this one.
  if (process.arch !== 'x64') throw new Error(`the guest is for x64, and this is ${process.arch}`)
  mkdirSync(dirname(GUEST_FOLDER), { recursive: true })
  const folder = mkdtempSync(`${GUEST_FOLDER}-`)
  try {
    const run = (/** @type {string} */ program, /** @type {string[]} */ ...words) =>
      execFileSync(program, words, { cwd: folder, stdio: ['ignore', 'pipe', 'ignore'], timeout: 300_000 })
    // The package of that name holds nothing; it depends on the kernel of the day.
    const depends = run('apt-cache', 'depends', PEERS['guest/vmlinuz']).toString()
    const kernel = /Depends: (linux-image-\S+)/.exec(depends)?.[1]
    if (kernel === undefined) throw new Error(`${PEERS['guest/vmlinuz']} names no kernel`)
    const parts = { [kernel]: KERNEL_FILES, [PEERS['guest/busybox']]: ['./bin/busybox'] }
    run('apt-get', 'download', '-q', ...Object.keys(parts))
    mkdirSync(join(folder, 'made/modules'), { recursive: true })
    for (const [name, files] of Object.entries(parts)) {
      const archive = readdirSync(folder).find((file) => file.startsWith(`${name}_`))
      if (archive === undefined) throw new Error(`apt-get download gave no ${name}`)
      const unpack = 'dpkg-deb --fsys-tarfile "$1" | { shift; tar -x --wildcards "$@"; }'
      run('/bin/sh', '-c', unpack, 'sh', archive, ...files)
    }
    for (const file of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
      const name = basename(file)
      const to = name.startsWith('vmlinuz-') ? 'vmlinuz' : name.endsWith('.ko') ? `modules/${name}` : name
      if (to === 'vmlinuz' || to === 'busybox' || name.endsWith('.ko'))
        renameSync(join(folder, file), join(folder, 'made', to))
    }
    rmSync(GUEST_FOLDER, { recursive: true, force: true })
    renameSync(join(folder, 'made'), GUEST_FOLDER)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) installPeers()
