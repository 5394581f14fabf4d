/*
 * The quorum lock of redislock, for Spin: one lock on N nodes that know nothing of
 * each other (Redlock), with fencing tokens that rise. docs/model.md says what is
 * modelled, what is left out, and what is checked.
 *
 * One step is what happens at once in reality: one script on one node, or what a
 * client does with one answer.
 *
 * Options, by -D:
 *   N=3            nodes
 *   C=2            contenders, one acquisition each
 *   TTL=2          the lease, in ticks; a tick may come at any time
 *   TICKS=0        no more ticks than that; 0: no limit
 *   HIGH=2         the highest fence to begin with
 *   RISEN=n        that many begin at HIGH, and the others at 0; without it they
 *                  begin anywhere from 0 to HIGH
 *   PROPOSE=0      a contender proposes the token 0 or this
 *   RENEW          holders extend their lease
 *   REPEATS=0      votes that are sent again; the first may still arrive
 *   STRAYS=0       releases that arrive after the contender gave up on them
 *   SAMEVALUE=0    times that a contender votes again with the same value
 *   CRASHES=0      nodes that come back empty, key and fence lost
 *   OLDFENCE       ... or with an old fence
 *   RESTART=TTL    ticks before they vote again: less is without the guard
 *   LATEGUARD      until then it is the client that does not count them
 *   DELETES=0      keys that are lost between the two rounds
 *   CLOCKS         tokens are at most LAG ticks behind the node's clock
 *   LAG=0
 *   SKEW=0         ticks that some clocks are ahead of others
 *   NOTOKENS       exclusion alone
 *   BEGUN          tokens alone, and of those who began after the other returned
 *   NORELEASE      nobody gives up or releases, all leases run out
 *   ONEMANAGER     all contenders are of one manager
 *   PROMPT         answers take no time
 *   NOGHOSTS       votes do not arrive later than the release
 *   SORT           nodes that have changed places are the same: fewer states
 *   LIVE           as an LTL formula: somebody gets the lock. Three nodes, whose
 *                  answers come within the tick; who fails tries again after it,
 *   ATTEMPTS=2     contender 0 so many times in all, 9: for ever
 *   DOWN           node N-1 may answer no more
 *   DIES           contender 0 may die
 *   BREAK_...      deliberate errors
 */

#ifndef N
#define N 3
#endif
#ifndef C
#define C 2
#endif
#ifndef TTL
#define TTL 2
#endif
#ifndef TICKS
#define TICKS 0
#endif
#ifndef HIGH
#define HIGH 2
#endif
#ifndef PROPOSE
#define PROPOSE 0
#endif
#ifndef REPEATS
#define REPEATS 0
#endif
#ifndef STRAYS
#define STRAYS 0
#endif
#ifndef SAMEVALUE
#define SAMEVALUE 0
#endif
#ifndef CRASHES
#define CRASHES 0
#endif
#ifndef RESTART
#define RESTART TTL
#endif
#ifndef DELETES
#define DELETES 0
#endif
#ifndef LAG
#define LAG 0
#endif
#ifndef SKEW
#define SKEW 0
#endif
#ifdef BREAK_HALF
#define MAJORITY	(N/2)
#else
#define MAJORITY	(N/2+1)
#endif
#ifndef ATTEMPTS
#define ATTEMPTS 2
#endif
#define RATE		8	/* tokens in a tick of the clock: more than are ever drawn */

/* --- the nodes --- */

byte key[N];		/* 0: absent; c+1: the value of contender c; GHOST */
byte pttl[N];		/* ticks left of the lease */
byte fence[N];
byte guard[N];		/* ticks until its answers count again */
#ifdef CLOCKS
#define OLD	1	/* a fence, of long ago */
byte now = LAG+1;
byte ahead[N];		/* of the slowest clock */
#endif

#define GHOST	(C+1)	/* set by a vote that arrived after the release: its value is nobody's any more */

/* --- the contenders --- */

#define IDLE		0
#define VOTING		1
#define CONFIRMING	2
#define HELD		3
#define LEAVING		4	/* releases are under way */
#define GONE		5

byte st[C];
byte valid[C];		/* ticks until ValidUntil, counted from before the first send */
byte mine[C];		/* the token */
byte prop[C];
#ifdef RENEW
bit  extending[C];
byte xvalid[C];		/* ticks until ValidUntil if the extension succeeds */
#endif

#define holds(c)	(st[c] == HELD && valid[c] > 0)

/* --- requests of contender c to node n, at s = c*N+n --- */

#define SENT	1
#define YES	2	/* the answer is under way; a no makes no difference to silence */
#define COUNTED	3

byte vote[C*N];		/* the vote; SENT after the release is a ghost */
byte tok[C*N];		/* the token in its answer */
byte req[C*N];		/* what follows: confirm, extend or release, by the state of the contender */
bit  again[C*N];	/* an earlier copy of the vote is still under way */

byte top;		/* the highest token that was returned */
#ifdef BEGUN
byte seen[C];		/* what it was when the contender began */
#endif
bit  stray[C*N];	/* a release that was given up on is still under way */

byte repeats = REPEATS, crashes = CRASHES, deletes = DELETES, strays = STRAYS, anew = SAMEVALUE;

#ifdef LIVE
byte attempts = ATTEMPTS;
bit  rest[C];		/* failed, and waits before the next attempt: a tick */
bit  down;		/* node N-1 */
#define reachable(n)	((n) < N-1 || !down)
#else
#define reachable(n)	1
#endif

/* Scratch, dead between steps. */
hidden byte q, x, y, t, m;
#ifdef SORT
hidden int wt[N], z;
#endif

/* --- on a node --- */

inline draw(c, n)
{
#ifdef NOTOKENS
	fence[n] = 1
#else
	fence[n]++;
#ifdef CLOCKS
#ifdef BREAK_LOSTFENCE
	t = RATE*(now + ahead[n] - LAG);
#else
	t = RATE*(now + ahead[n] - (fence[n] == 1 -> 0 : LAG));	/* 1: there was none, so one may have been lost */
#endif
	if :: fence[n] < t -> fence[n] = t :: else fi;
#endif
	if :: fence[n] < prop[c] -> fence[n] = prop[c] :: else fi
#endif
}

/* x: the token, or 0 for a no */
inline execVote(s, c, n)
{
	x = 0;
	if
	:: key[n] == 0 ->
		key[n] = (st[c] == GONE || (st[c] == LEAVING && req[s] == 0) -> GHOST : c+1);
		pttl[n] = TTL;
		draw(c, n); x = fence[n]
	:: key[n] == c+1 ->
		draw(c, n); x = fence[n]
	:: else
	fi;
#if defined(LATEGUARD) || defined(BREAK_GUARDVOTES)
	if :: guard[n] > 0 -> x = 0 :: else fi
#endif
}

#if defined(BREAK_UNCHECKED) || defined(BREAK_ANYNODE)
#define confirms(c, n)	1
#else
#define confirms(c, n)	(key[n] == c+1)
#endif
#ifdef BREAK_NOOWNER
#define removes(c, n)	1
#else
#define removes(c, n)	(key[n] == c+1)
#endif
#ifdef LATEGUARD
#define counts(n)	(guard[n] == 0)
#else
#define counts(n)	1
#endif

inline execRequest(s, c, n)
{
	req[s] = 0;
	if
	:: st[c] == CONFIRMING && confirms(c, n) ->
		if :: fence[n] < mine[c] -> fence[n] = mine[c] :: else fi;
		if :: counts(n) -> req[s] = YES :: else fi
#ifdef RENEW
	:: st[c] == HELD && key[n] == c+1 ->
		pttl[n] = TTL;
		if :: counts(n) -> req[s] = YES :: else fi
#endif
	:: st[c] == LEAVING && removes(c, n) -> key[n] = 0; pttl[n] = 0
	:: else
	fi;
#ifdef NOGHOSTS
	if :: st[c] == LEAVING -> vote[s] = 0 :: else fi;
#endif
	left(c)
}

/* --- in a client --- */

inline left(c)	/* all releases have been answered */
{
	if
	:: st[c] == LEAVING ->
		x = 0;
		for (q : c*N .. c*N+N-1) { x = x + req[q] }
		if :: x == 0 -> st[c] = GONE; prop[c] = 0; nothingLeft(c) :: else fi
	:: else
	fi
}

inline leave(c)	/* releases on all nodes */
{
	st[c] = LEAVING; valid[c] = 0; mine[c] = 0;
#ifdef RENEW
	extending[c] = 0; xvalid[c] = 0;
#endif
	for (q : c*N .. c*N+N-1) {
#ifdef BREAK_RELEASESOME
		req[q] = (vote[q] == COUNTED || req[q] != 0 -> SENT : 0);
#else
		req[q] = SENT;
#endif
		tok[q] = 0;
		if :: vote[q] != SENT -> vote[q] = 0 :: else fi
	};
#ifdef BREAK_RELEASESOME
	left(c)
#else
	skip
#endif
}

inline succeed(c)
{
	for (q : c*N .. c*N+N-1) {
		req[q] = 0; tok[q] = 0;
		if :: vote[q] != SENT -> vote[q] = 0 :: else fi
	}
#ifdef BREAK_ANSWERTIME
	valid[c] = TTL;
#endif
	if
	:: valid[c] == 0 -> leave(c)
	:: else ->
		st[c] = HELD;
		believes(c);
#ifdef BEGUN
		if :: mine[c] > top -> top = mine[c] :: else fi
#elif !defined(NOTOKENS)
		assert(mine[c] > top);	/* tokens rise */
		top = mine[c]
#endif
	fi
}

inline decide(c)	/* x nodes said yes, a majority. The highest token is t, and y of them have it */
{
	mine[c] = t;
#ifdef ONEMANAGER
#ifndef BREAK_RETURNED
	if :: t <= top -> mine[c] = top+1; y = 0 :: else fi;	/* it knows what it has returned */
#endif
#endif
#ifdef BREAK_ONEROUND
	y = MAJORITY;
#endif
#ifdef BREAK_OFVOTES	/* a majority of the votes, instead of the nodes */
	if :: y > x/2 -> y = MAJORITY :: else fi;
#endif
	if
	:: y >= MAJORITY -> succeed(c)
	:: else ->
		st[c] = CONFIRMING;
		for (q : c*N .. c*N+N-1) {
			if
			:: vote[q] == COUNTED -> req[q] = (tok[q] == mine[c] -> COUNTED : SENT)
			:: else ->
#ifdef BREAK_ANYNODE
				req[q] = SENT
#else
				skip
#endif
			fi;
			if :: vote[q] == COUNTED -> tok[q] = 0; vote[q] = 0 :: else fi
		}
	fi
}

inline voted(s, c)	/* a yes arrives */
{
	if
	:: st[c] == CONFIRMING ->	/* late, but one more that may confirm */
		x = tok[s]; vote[s] = 0; tok[s] = 0;
		if
		:: x < mine[c] -> req[s] = SENT
		:: x == mine[c] -> answered(s, c)
		:: else ->
#ifdef BREAK_LATEHIGHER
			answered(s, c)
#else
			skip
#endif
		fi
	:: else -> counted(s, c)
	fi
}

inline counted(s, c)
{
	vote[s] = COUNTED;
	x = 0; y = 0; t = 0;
	for (q : c*N .. c*N+N-1) {
		if
		:: vote[q] == COUNTED ->
			x++;
			if
			:: tok[q] > t -> t = tok[q]; y = 1
			:: tok[q] == t -> y++
			:: else
			fi
		:: else
		fi
	}
	if
	:: x >= MAJORITY -> decide(c)
	:: else
	fi
}

inline answered(s, c)	/* so does a yes to a confirm or an extend */
{
	req[s] = COUNTED;
	x = 0;
	for (q : c*N .. c*N+N-1) {
		if :: req[q] == COUNTED -> x++ :: else fi
	}
	if
	:: x >= MAJORITY && st[c] == CONFIRMING -> succeed(c)
#ifdef RENEW
	:: x >= MAJORITY && st[c] == HELD ->
#ifdef BREAK_LATEEXTEND
		xvalid[c] = TTL;
#endif
#ifdef BREAK_LAPSED
		valid[c] = xvalid[c];
#else
		if :: holds(c) && xvalid[c] > valid[c] -> valid[c] = xvalid[c] :: else fi;
#endif
		if :: holds(c) -> believes(c) :: else fi;
		stopExtending(c)
#endif
	:: else
	fi
}

#ifdef RENEW
inline stopExtending(c)
{
	extending[c] = 0; xvalid[c] = 0;
	for (q : c*N .. c*N+N-1) { req[q] = 0 }
}
#endif

inline begin(c, p)
{
	st[c] = VOTING; valid[c] = TTL; prop[c] = p;
#ifdef BEGUN
	seen[c] = top;
#endif
#ifdef ONEMANAGER
	prop[c] = top+1;
#endif
	for (q : c*N .. c*N+N-1) { vote[q] = SENT };
	skip
}

/* --- time and faults --- */

inline less(a) { if :: a > 0 -> a-- :: else fi }

inline time()
{
	for (q : 0 .. N-1) {
		less(pttl[q]); less(guard[q]);
		if :: pttl[q] == 0 -> key[q] = 0 :: else fi
	}
	for (q : 0 .. C-1) {
		less(valid[q]);
#ifdef RENEW
		less(xvalid[q]);
#endif
	}
#ifdef CLOCKS
	now++;
#endif
#ifdef LIVE
	for (q : 0 .. C-1) { rest[q] = 0 };
#endif
	skip
}

inline crash(n)
{
	key[n] = 0; pttl[n] = 0;
#ifdef OLDFENCE
	fence[n] = OLD;
#else
	fence[n] = 0;
#endif
	guard[n] = RESTART
}

#ifdef SORT
/* Nodes differ in nothing but their state, so the order of two makes none. */
#define swap(a, b)	t = a; a = b; b = t

inline weigh(n)
{
	wt[n] = (((key[n]*4 + pttl[n])*128 + fence[n])*4 + guard[n]);
	for (q : 0 .. C-1) {
		wt[n] = ((wt[n]*4 + vote[q*N+n])*4 + req[q*N+n])*2 + (again[q*N+n] || stray[q*N+n])
	}
}

inline order(a, b)
{
	if
	:: wt[a] < wt[b] ->
		z = wt[a]; wt[a] = wt[b]; wt[b] = z;
		swap(key[a], key[b]); swap(pttl[a], pttl[b]); swap(fence[a], fence[b]); swap(guard[a], guard[b]);
#ifdef CLOCKS
		swap(ahead[a], ahead[b]);
#endif
		for (q : 0 .. C-1) {
			swap(vote[q*N+a], vote[q*N+b]); swap(tok[q*N+a], tok[q*N+b]);
			swap(req[q*N+a], req[q*N+b]); swap(again[q*N+a], again[q*N+b]); swap(stray[q*N+a], stray[q*N+b])
		}
	:: else
	fi
}

inline sort()
{
	for (m : 0 .. N-1) { weigh(m) };
	order(0, 1); order(1, 2);
#if N > 3
	order(2, 3);
#endif
#if N > 4
	order(3, 4); order(0, 1); order(1, 2); order(2, 3);
#endif
#if N > 3
	order(0, 1); order(1, 2);
#endif
	order(0, 1)
}
#else
#define sort()	skip
#endif

/* --- what is checked --- */

/* c has been given the lock with its token, or has more time. */
inline believes(c)
{
#ifdef BEGUN
	assert(mine[c] > seen[c])
#else
	for (m : 0 .. C-1) { assert(m == c || !holds(m)) };	/* exclusion */
	assert(mine[c] >= top)	/* nobody was given the lock since */
#endif
}

/* c has been told by all nodes that it is released. */
inline nothingLeft(c)
{
	for (m : 0 .. N-1) { assert(key[m] != c+1 || stray[c*N+m]) };
	skip
}

/* --- who acts --- */

#ifdef LIVE
#define FOREVER	9
#ifdef BREAK_WAITALL
#define open(s, n)	(vote[s] == SENT || vote[s] == YES || req[s] == SENT || req[s] == YES)
#else
#define open(s, n)	(((vote[s] == SENT || req[s] == SENT) && reachable(n)) || vote[s] == YES || req[s] == YES)
#endif
/* Nothing that may still be answered; and that was not enough. */
#define unanswered(c)	!(open(c*N, 0) || open(c*N+1, 1) || open(c*N+2, 2))
#define hopeless(c)	((st[c] == VOTING || st[c] == CONFIRMING) && (valid[c] == 0 || unanswered(c)))

inline forget(c)
{
	st[c] = GONE;
	for (q : c*N .. c*N+N-1) { req[q] = 0; vote[q] = 0 };
	skip
}
#endif

proctype User(byte c)
{
end:	do
	:: d_step { st[c] == IDLE && (c == 0 || st[c-1] != IDLE) -> printf("%d votes\n", c); begin(c, 0); sort() }
#ifdef CLOCKS
	:: d_step { st[c] == IDLE && (c == 0 || st[c-1] != IDLE) -> printf("%d votes, and knows the clocks\n", c); begin(c, RATE*(now+SKEW)); sort() }
#endif
#if PROPOSE > 0
	:: d_step { st[c] == IDLE && (c == 0 || st[c-1] != IDLE) -> printf("%d votes, proposes\n", c); begin(c, PROPOSE); sort() }
#endif
#if SAMEVALUE > 0
	:: d_step { st[c] == GONE && anew > 0 -> printf("%d votes anew\n", c); anew--; begin(c, 0); sort() }
#endif
#ifdef NORELEASE
#elif !defined(LIVE)
	:: d_step { st[c] == VOTING || st[c] == CONFIRMING || st[c] == HELD -> printf("%d gives up, or releases\n", c); leave(c); sort() }
#else
	:: d_step { hopeless(c) -> printf("%d fails\n", c); rest[c] = 1; leave(c) }
	:: d_step { st[c] == HELD -> printf("%d releases\n", c); leave(c) }
	:: d_step { st[c] == LEAVING && unanswered(c) -> printf("%d: no answer to its release\n", c); forget(c) }
	:: d_step { st[c] == GONE && !rest[c] && (c > 0 || attempts > 1) -> printf("%d votes anew\n", c);
			if :: c == 0 && attempts < FOREVER -> attempts-- :: else fi;
			begin(c, 0)
		}
#ifdef DIES
	:: d_step { c == 0 && st[c] != IDLE && st[c] != GONE -> printf("%d dies\n", c); attempts = 0; leave(c); forget(c) }
#endif
#endif
#ifdef RENEW
	:: d_step { holds(c) && !extending[c] -> printf("%d extends\n", c);
			extending[c] = 1; xvalid[c] = TTL;
			for (q : c*N .. c*N+N-1) { req[q] = SENT };
			sort()
		}
	:: d_step { extending[c] && st[c] == HELD -> printf("%d: extension fails\n", c); stopExtending(c); sort() }
#endif
	od
}

#if defined(LATEGUARD) || defined(BREAK_GUARDVOTES)
#define votes(n)	reachable(n)
#else
#define votes(n)	(reachable(n) && guard[n] == 0)
#endif

#define awaits(c)	(st[c] == VOTING || st[c] == CONFIRMING)

/* Carries the requests of contender c to node n. */
proctype Wire(byte s; byte c; byte n)
{
end:	do
	:: d_step { vote[s] == SENT && votes(n) -> execVote(s, c, n);
			vote[s] = (x > 0 && awaits(c) -> YES : 0);
			tok[s] = (vote[s] == YES -> x : 0);
			printf("node %d: vote for %d, token %d\n", n, c, x);
#ifdef PROMPT
			if :: vote[s] == YES -> voted(s, c) :: else fi;
#endif
			sort()
		}
	:: d_step { vote[s] == YES -> printf("%d: the vote of node %d arrives\n", c, n); voted(s, c); sort() }
	:: d_step { req[s] == SENT && reachable(n) -> printf("node %d: request of %d in state %d (2 confirm, 3 extend, 4 release)\n", n, c, st[c]);
			execRequest(s, c, n);
#ifdef PROMPT
			if :: req[s] == YES -> answered(s, c) :: else fi;
#endif
			sort()
		}
	:: d_step { req[s] == YES -> printf("%d: the answer of node %d arrives\n", c, n); answered(s, c); sort() }
#if REPEATS > 0
	:: d_step { (vote[s] == SENT || vote[s] == YES) && st[c] == VOTING && repeats > 0 && !again[s] -> printf("%d asks node %d again\n", c, n);
			repeats--; again[s] = (vote[s] == SENT); vote[s] = SENT; tok[s] = 0; sort()
		}
	:: d_step { again[s] && votes(n) -> printf("node %d: the first vote for %d arrives\n", n, c); execVote(s, c, n); again[s] = 0; sort() }
#endif
#if STRAYS > 0
	:: d_step { req[s] == SENT && st[c] == LEAVING && strays > 0 && !stray[s] -> printf("%d gives up on its release at node %d\n", c, n);
			strays--; stray[s] = 1; req[s] = 0; left(c); sort()
		}
	:: d_step { stray[s] -> printf("node %d: a late release of %d\n", n, c);
			stray[s] = 0;
			if :: key[n] == c+1 -> key[n] = 0; pttl[n] = 0 :: else fi;
			sort()
		}
#endif
#if DELETES > 0
	:: d_step { deletes > 0 && st[c] == CONFIRMING && req[s] == SENT && key[n] == c+1 -> printf("node %d loses the key\n", n);
			deletes--; key[n] = 0; pttl[n] = 0; sort()
		}
#endif
	od
}

#if CRASHES > 0
proctype Crashes(byte n)
{
end:	do
	:: d_step { crashes > 0 -> printf("node %d comes back empty\n", n); crashes--; crash(n); sort() }
	od
}
#endif

#ifdef DOWN
proctype Outage()
{
	if
	:: down = 1
	:: true
	fi
}
#endif

proctype Clock()
{
#if TICKS > 0
	byte ticks = TICKS;
end:	do
	:: d_step { ticks > 0 -> ticks--; printf("tick\n"); time(); sort() }
	od
#elif defined(LIVE)
end:	do
	:: atomic { timeout -> d_step { printf("tick\n"); time() } }
	od
#else
end:	do
	:: d_step { printf("tick\n"); time(); sort() }
	od
#endif
}

init {
	byte c, n;
	atomic {
		/* Which node is which makes no difference, so those whose fence, or clock,
		 * is ahead come first. Nor does what is added to all: the last has 0. */
#if defined(NOTOKENS)
#elif defined(CLOCKS)
		for (n : 0 .. N-1) { fence[n] = OLD }
#elif defined(RISEN)
		for (n : 0 .. RISEN-1) { fence[n] = HIGH }
#else
		fence[0] = HIGH;
		for (n : 0 .. N-2) {
			do
			:: fence[n] > 0 -> fence[n]--
			:: break
			od;
			if :: n < N-2 -> fence[n+1] = fence[n] :: else fi
		}
#endif
#if SKEW > 0
		ahead[0] = SKEW;
		for (n : 1 .. N-2) {
			if
			:: ahead[n-1] > 0 -> ahead[n] = SKEW
			:: true -> break
			fi
		}
#endif
		for (c : 0 .. C-1) {
			run User(c);
			for (n : 0 .. N-1) { run Wire(c*N+n, c, n) }
		}
#if CRASHES > 0
		for (n : 0 .. N-1) { run Crashes(n) }
#endif
		run Clock();
#ifdef DOWN
		run Outage();
#endif
		c = 0; n = 0
	}
}

#ifdef LIVE
/* Who goes on trying gets it once. */
ltl live { <> (st[1] == HELD) }
#endif
