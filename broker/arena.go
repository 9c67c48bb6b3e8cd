package broker

import (
	"encoding/binary"
	"sync/atomic"
)

// pageSize is the arena's unit in bytes: one outbound chunk, one piece of a large packet, or one page of blocks.
const pageSize = 4096

// blockUnit is the granularity of block references in bytes: 32 bits of them reach 256 GiB.
const blockUnit = 64

const unitsPerPage = pageSize / blockUnit

// emergencyPages is what each shard keeps for acknowledgements, PINGRESP and DISCONNECT when messages have used up
// the arena: those never fall to message limits.
const emergencyPages = 32

// sparePages is what each shard keeps for input that it cannot consume yet: when memory is used up, publishers wait with
// a PUBLISH in our hands, and those must not use up the pages that acknowledgements need.
const sparePages = 64

// wholePage is the class of a page that is not cut into blocks.
const wholePage = uint8(len(blockClasses))

// blockClasses are the sizes in bytes that a page is cut into.
var blockClasses = [...]uint16{64, 128, 192, 256, 384, 512, 768, 1024, 2048}

// classOfUnits maps a size in units, rounded up, to the smallest class that holds it.
var classOfUnits = [unitsPerPage + 1]uint8{
	0, 0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7,
	8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8,
	9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9,
	9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9,
}

// page describes one page. Which fields mean something depends on what the page is used for.
type page struct {
	next, prev uint32 // chain of an outbound buffer, a packet, or pages of one class with free blocks
	begin, end uint16 // outbound: the bytes not yet sent; blocks: first free block + 1, blocks in use
	carved     uint16 // blocks: how many were ever cut off this page
	class      uint8
	owner      uint8  // blocks: the shard that cuts and collects
	ref        uint32 // outbound: the message whose payload follows the page's bytes
	refAt      uint32 // outbound: bytes of that payload already sent
}

// arena is the process's memory for messages, partial packets and outbound bytes: one reserved mapping cut into pages.
// Pages move between shards through slots; blocks belong to the shard that cut their page and come home through remote.
type arena struct {
	data      []byte
	pages     []page
	slots     *slots
	remote    []remoteFrees // one per shard
	committed atomic.Int64  // pages promised to large packets whose bytes have not arrived yet
}

// remoteFrees is a stack of blocks that other shards freed: any shard pushes, the owner takes all.
type remoteFrees struct {
	head atomic.Uint32
	_    [60]byte // a cache line each
}

func newArena(pages, shards int) (*arena, error) {
	a := &arena{remote: make([]remoteFrees, shards)}
	var err error
	if a.data, err = reserve[byte]((pages + 1) * pageSize); err != nil {
		return nil, err
	}
	if a.pages, err = reserve[page](pages + 1); err != nil {
		return nil, err
	}
	a.slots, err = newSlots(pages)
	return a, err
}

// promiseMax is how many pages may be promised to large packets at a time: half, so that announcing packets and not
// sending them cannot take the memory from everybody else.
func (a *arena) promiseMax() int64 { return int64(a.slots.max) / 2 }

// everHolds says whether n pages can be promised at all.
func (a *arena) everHolds(n int) bool { return int64(n) <= a.promiseMax() }

func (a *arena) release() {
	_ = release(a.data)
	_ = release(a.pages)
	a.slots.release()
}

// bytes is page p's memory, valid until the page is freed.
func (a *arena) bytes(p uint32) []byte {
	return a.data[int(p)*pageSize : (int(p)+1)*pageSize : (int(p)+1)*pageSize]
}

// block is the memory of a block, n bytes of it, valid until the block is freed.
func (a *arena) block(ref uint32, n int) []byte {
	at := int(ref) * blockUnit
	return a.data[at : at+n : at+n]
}

// commit promises n pages to a packet that is about to arrive; false when the arena cannot hold it.
func (a *arena) commit(n int) bool {
	if a.committed.Add(int64(n)) > min(a.slots.available.Load(), a.promiseMax()) {
		a.committed.Add(-int64(n))
		return false
	}
	return true
}

// pool is one shard's access to the arena. Not for concurrent use.
type pool struct {
	a         *arena
	shard     uint8
	cache     slotCache
	partial   [2][len(blockClasses)]uint32 // pages of ours with free blocks: for messages, and cut from spare pages
	emergency []uint32
	spare     []uint32
}

func newPool(a *arena, shard int) *pool {
	p := &pool{a: a, shard: uint8(shard), cache: slotCache{s: a.slots}, emergency: make([]uint32, 0, emergencyPages),
		spare: make([]uint32, 0, sparePages)}
	p.restock()
	return p
}

// restock fills the emergency and spare stores as far as the arena allows.
func (p *pool) restock() {
	for len(p.emergency) < emergencyPages || len(p.spare) < sparePages {
		pg := p.cache.get()
		if pg == 0 {
			return
		}
		p.freePage(pg)
	}
}

// page takes one page for messages; 0 when the arena is used up or what is left is promised.
func (p *pool) page() uint32 {
	if !p.mayTake() {
		p.collect()
		if !p.mayTake() {
			return 0
		}
	}
	return p.clean(p.cache.get())
}

// mayTake says whether a page is left that is not promised: neither the cache's last pages nor a whole batch may be
// taken when large packets wait for them.
func (p *pool) mayTake() bool {
	promised, available := p.a.committed.Load(), p.a.slots.available.Load()
	if p.cache.head == 0 {
		return promised+slotBatch <= available || promised == 0 && available > 0
	}
	return promised == 0 || promised < available+int64(p.cache.n)
}

// holds says whether n pages are left that are not promised.
func (p *pool) holds(n int) bool {
	return p.a.committed.Load()+int64(n)+slotBatch <= p.a.slots.available.Load()
}

// committedPage takes one page that commit promised.
func (p *pool) committedPage() uint32 {
	pg := p.cache.get()
	if pg != 0 {
		p.a.committed.Add(-1)
	}
	return p.clean(pg)
}

// commit promises n pages to a packet that is about to arrive; pages that only this shard could give away are not held back.
func (p *pool) commit(n int) bool {
	if p.a.commit(n) {
		return true
	}
	p.collect()
	for p.cache.n >= slotBatch {
		p.cache.giveBatch()
	}
	return p.a.commit(n)
}

// urgency says how far into the emergency store bytes to send may dip.
type urgency int

const (
	forBulk     urgency = emergencyPages     // not at all
	forDelivery urgency = emergencyPages / 2 // a QoS 1 or 2 message to a client that has nothing else under way
	forControl  urgency = 0                  // acknowledgements
)

// urgentPage takes a page as urgency u allows.
func (p *pool) urgentPage(u urgency) uint32 {
	if pg := p.page(); pg != 0 {
		return pg
	}
	if len(p.emergency) <= int(u) {
		return 0
	}
	return p.clean(takeLast(&p.emergency))
}

// isLow says whether half of the emergency store is in use.
func (p *pool) isLow() bool { return len(p.emergency) < emergencyPages/2 }

// sparePage takes a page for input that waits: it may dip into the spare store.
func (p *pool) sparePage() uint32 {
	if pg := p.page(); pg != 0 {
		return pg
	}
	return p.clean(takeLast(&p.spare))
}

// takeLast takes a page off a store; 0 when it is empty.
func takeLast(store *[]uint32) uint32 {
	n := len(*store)
	if n == 0 {
		return 0
	}
	pg := (*store)[n-1]
	*store = (*store)[:n-1]
	return pg
}

func (p *pool) clean(pg uint32) uint32 {
	if pg != 0 {
		p.a.pages[pg] = page{class: wholePage}
	}
	return pg
}

// freePage returns a whole page.
func (p *pool) freePage(pg uint32) {
	if len(p.emergency) < emergencyPages {
		p.emergency = append(p.emergency, pg)
		return
	}
	if len(p.spare) < sparePages {
		p.spare = append(p.spare, pg)
		return
	}
	p.cache.put(pg)
}

// freeChain returns all pages linked from pg.
func (p *pool) freeChain(pg uint32) {
	for pg != 0 {
		next := p.a.pages[pg].next
		p.freePage(pg)
		pg = next
	}
}

// blockSize is what a block for n bytes really takes.
func blockSize(n int) int {
	c := classOfUnits[(n+blockUnit-1)/blockUnit]
	if c == wholePage {
		return pageSize
	}
	return int(blockClasses[c])
}

// alloc takes a block of at least n ≤ pageSize bytes; 0 when the arena is used up.
func (p *pool) alloc(n int) uint32 { return p.allocFrom(n, forMessages) }

// allocSpare is alloc for input that waits. Its blocks never serve messages.
func (p *pool) allocSpare(n int) uint32 { return p.allocFrom(n, forInput) }

// What blocks are for: an index of pool.partial, kept in page.ref of a page that is cut.
const (
	forMessages = 0
	forInput    = 1
)

func (p *pool) allocFrom(n int, use uint32) uint32 {
	class := classOfUnits[(n+blockUnit-1)/blockUnit]
	if class == wholePage {
		return p.pageFor(use) * unitsPerPage
	}
	pg := p.partial[use][class]
	if pg == 0 {
		if pg = p.cutPage(class, use); pg == 0 {
			return 0
		}
	}
	m := &p.a.pages[pg]
	size := uint32(blockClasses[class])
	var ref uint32
	if m.begin != 0 {
		i := uint32(m.begin - 1)
		ref = pg*unitsPerPage + i*size/blockUnit
		m.begin = binary.LittleEndian.Uint16(p.a.block(ref, 2))
	} else {
		ref = pg*unitsPerPage + uint32(m.carved)*size/blockUnit
		m.carved++
	}
	m.end++
	if m.begin == 0 && uint32(m.carved+1)*size > pageSize {
		p.unlink(pg, m)
	}
	return ref
}

// cutPage finds a page with free blocks of a class: one that came back from other shards, or a new one.
func (p *pool) cutPage(class uint8, use uint32) uint32 {
	p.collect()
	if pg := p.partial[use][class]; pg != 0 {
		return pg
	}
	pg := p.pageFor(use)
	if pg == 0 {
		return 0
	}
	m := &p.a.pages[pg]
	m.class, m.owner, m.ref = class, p.shard, use
	p.link(pg, m)
	return pg
}

func (p *pool) pageFor(use uint32) uint32 {
	if use == forInput {
		return p.sparePage()
	}
	return p.page()
}

// free returns a block. A block of another shard's page goes to that shard.
func (p *pool) free(ref uint32) {
	pg := ref / unitsPerPage
	m := &p.a.pages[pg]
	if m.class == wholePage {
		p.freePage(pg)
		return
	}
	if m.owner != p.shard {
		p.freeRemote(ref, &p.a.remote[m.owner])
		return
	}
	p.freeOwn(ref, pg, m)
}

func (p *pool) freeRemote(ref uint32, r *remoteFrees) {
	for {
		old := r.head.Load()
		binary.LittleEndian.PutUint32(p.a.block(ref, 4), old)
		if r.head.CompareAndSwap(old, ref) {
			return
		}
	}
}

func (p *pool) freeOwn(ref, pg uint32, m *page) {
	size := uint32(blockClasses[m.class])
	wasFull := m.begin == 0 && uint32(m.carved+1)*size > pageSize
	binary.LittleEndian.PutUint16(p.a.block(ref, 2), m.begin)
	m.begin = uint16(ref%unitsPerPage*blockUnit/size) + 1
	m.end--
	if wasFull {
		p.link(pg, m)
	}
	// The last page of a class with room is kept, so that one message after another does not cut a page each. One of the spare store goes back
	// there: when memory is used up, the next page that comes free would go there first.
	if m.end == 0 && (m.next != 0 || m.prev != 0 || m.ref == forInput) {
		p.unlink(pg, m)
		p.freePage(pg)
	}
}

// collect takes back what other shards freed.
func (p *pool) collect() {
	r := &p.a.remote[p.shard]
	if r.head.Load() == 0 {
		return
	}
	for ref := r.head.Swap(0); ref != 0; {
		next := binary.LittleEndian.Uint32(p.a.block(ref, 4))
		pg := ref / unitsPerPage
		p.freeOwn(ref, pg, &p.a.pages[pg])
		ref = next
	}
}

func (p *pool) link(pg uint32, m *page) {
	m.prev, m.next = 0, p.partial[m.ref][m.class]
	if m.next != 0 {
		p.a.pages[m.next].prev = pg
	}
	p.partial[m.ref][m.class] = pg
}

func (p *pool) unlink(pg uint32, m *page) {
	if m.prev != 0 {
		p.a.pages[m.prev].next = m.next
	} else {
		p.partial[m.ref][m.class] = m.next
	}
	if m.next != 0 {
		p.a.pages[m.next].prev = m.prev
	}
	m.next, m.prev = 0, 0
}
